# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A whole `ramlift migrate` of an idle guest of the reference VMM: bytes sent over the time that memory flowed, first registration
# included, beside ib_write_bw.

about="A guest of the reference VMM, moved by the command"
ground_kind=rdma
needs=(guest)

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-128}
}

measure()
{
	local rate cpu

	read -r rate cpu < <(ib_write_bw 65536 4 $((mib << 20))) && [[ -n ${cpu:-} ]] || return 1
	sample ib_write_bw MiB/s "$rate"
	on B ./inside receive 7440 --once >&2 || return 1
	on A ./inside run bench --memory "${mib}M" --workload hot=0,fill=100 >&2 || return 1
	on A "$ramlift" migrate bench --to "$to:7440" --transport rdma --insecure --json --quiet >"$logs/client.log" ||
		{ cat "$logs/client.log" >&2; return 1; }
	on B "$ramlift" stop bench >/dev/null
	sample ramlift MiB/s "$(jq '.bytes_sent / 1048576 / (.phases.stream_ns / 1e9)' "$logs/client.log")"
	sample ramlift.downtime ms "$(jq '.downtime.total_ns / 1e6' "$logs/client.log")"
}

rows()
{
	row "bytes sent over streaming time, against ib_write_bw 64 KiB" ramlift ib_write_bw atleast ""
	row_value "downtime, idle" ramlift.downtime
}

chart()
{
	bars "A guest of the reference VMM" ib_write_bw ramlift
}
