# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A whole session over TCP on loopback, memory touched before on both sides, beside QEMU's migration of as much by one stream,
# and by multifd with as many channels.

about="TCP on loopback: a whole session of an idle guest's random memory, 2 lanes, beside QEMU's tcp:"
ground_kind=local
needs=(qemu)

prepare()
{
	mib=${RAMLIFT_BENCH_TCP_MIB:-4096}
	prepare_qemu on 300
}

measure()
{
	local json kind

	json=$(instrument move "" --transport tcp --lanes 2 --mib "$mib" --prealloc) || return 1
	sample ramlift MiB/s "$(jq '.mib / (.run_ns / 1e9)' <<<"$json")"
	sample ramlift.cpu s/GB "$(jq '([.source, .destination] | map(.cpu_user_ns + .cpu_system_ns) | add) / .source.session.bytes_sent' <<<"$json")"
	sample ramlift.downtime ms "$(jq '.source.session.downtime.total_ns / 1e6' <<<"$json")"
	for kind in tcp tcp-2; do
		measure_qemu "$kind" || return 1
		sample "qemu.$kind.rate" MiB/s "$(awk "BEGIN { print $mib / (${qemu[total_ms]} / 1e3) }")"
	done
}

rows()
{
	row "rate, 2 lanes, against QEMU multifd, 2 channels" ramlift qemu.tcp-2.rate atleast 1.3
	row "CPU a GB, both sides, against the same" ramlift.cpu qemu.tcp-2.cpu atmost 1.0
	row "rate, against QEMU tcp: without multifd" ramlift qemu.tcp.rate atleast ""
	row "CPU a GB, both sides, against the same" ramlift.cpu qemu.tcp.cpu atmost ""
	row "downtime of an idle guest, against QEMU multifd" ramlift.downtime qemu.tcp-2.downtime atmost ""
}

chart()
{
	bars "Rate over TCP on loopback" ramlift qemu.tcp-2.rate qemu.tcp.rate
}
