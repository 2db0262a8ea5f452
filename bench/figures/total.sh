# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A whole session of an idle guest with random memory, from its beginning until the guest runs there, with one lane, for QEMU has
# one queue pair; beside QEMU's own migration of as much
# memory by RDMA, both of memory that was touched before on both sides. QEMU's times are its own: total-time and downtime.

about="A whole session: an idle guest's random memory, set-up included, beside QEMU's rdma:"
ground_kind=rdma
needs=(qemu one-host)

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-1024}
	prepare_qemu on 300
}

measure()
{
	local json kind

	json=$(instrument move "" --mib "$mib" --prealloc --lanes 1) || return 1
	sample ramlift ms "$(jq '.source.session.elapsed_ns / 1e6' <<<"$json")"
	sample ramlift.first-byte ms "$(jq '.first_post_ns / 1e6' <<<"$json")"
	sample ramlift.downtime ms "$(jq '.source.session.downtime.total_ns / 1e6' <<<"$json")"
	sample sync ms "$(jq '.sync_ns / 1e6' <<<"$json")"
	sample ramlift.cpu s/GB "$(jq '([.source, .destination] | map(.cpu_user_ns + .cpu_system_ns) | add) / .source.session.bytes_sent' <<<"$json")"
	for kind in rdma-pin-all rdma; do
		measure_qemu "$kind" || return 1
	done
}

rows()
{
	row "total time, set-up included, against QEMU rdma: pin-all" ramlift qemu.rdma-pin-all atmost 0.9
	row "total time, set-up included, against QEMU rdma:" ramlift qemu.rdma atmost 0.6
	row "downtime of an idle guest, against QEMU rdma: pin-all" ramlift.downtime qemu.rdma-pin-all.downtime atmost 0.1
	row "downtime of an idle guest, against QEMU rdma:" ramlift.downtime qemu.rdma.downtime atmost 0.1
	row "CPU a GB, both sides, against QEMU rdma: pin-all" ramlift.cpu qemu.rdma-pin-all.cpu atmost ""
	row "CPU a GB, both sides, against QEMU rdma:" ramlift.cpu qemu.rdma.cpu atmost ""
	row_value "time to first byte" ramlift.first-byte
	row_value "in the downtime: one write to a journal on this disk" sync
}

chart()
{
	bars "Total time of a session" ramlift qemu.rdma-pin-all qemu.rdma ramlift.downtime qemu.rdma-pin-all.downtime qemu.rdma.downtime
}
