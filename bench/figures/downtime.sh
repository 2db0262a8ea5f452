# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The downtime of a guest that goes on writing, at several shares of the link's rate, beside its floor in the same run: what was
# left at the pause over the rate at which the lanes sent before, two round trips, and the state. The guest writes pages at random
# within a quarter of its memory, and marks each (bench/move_guest.c): it stops within microseconds, so what is measured is the
# engine's.

about="Downtime of a writing guest, beside the floor: residual / link rate + 2 round trips + state"
ground_kind=rdma
shares=(0 5 10 20 40) # percent of the link's rate

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-$([[ $mode == testbed ]] && echo 128 || echo 1024)}
	parts=(pause harvest save drain fence load commit start)
}

measure()
{
	local share json rate part

	json=$(instrument lanes "" --mib "$mib" --rounds 1) || return 1
	rate=$(jq .mib_per_s <<<"$json")
	sample link MiB/s "$rate"
	for share in "${shares[@]}"; do
		json=$(instrument move "" --mib "$mib" --prealloc --settle-ms 100 --write-set-mib $((mib / 4)) \
			--write-mib-per-s "$(awk "BEGIN { printf \"%d\", $rate * $share / 100 }")") || return 1
		sample "downtime.$share" ms "$(jq '.source.session.downtime.total_ns / 1e6' <<<"$json")"
		sample "floor.$share" ms "$(jq --argjson rate "$rate" \
			'((.source.session.residual_bytes + .state_bytes) / ($rate * 1048576) * 1e9 + 2 * .round_trip_ns) / 1e6' <<<"$json")"
		sample "residual.$share" KiB "$(jq '.source.session.residual_bytes / 1024' <<<"$json")"
		sample sync us "$(jq '.sync_ns / 1e3' <<<"$json")"
		for part in "${parts[@]}"; do
			sample "part.$part.$share" us "$(jq ".source.session.downtime.${part}_ns / 1e3" <<<"$json")"
		done
	done
}

rows()
{
	local share part

	for share in "${shares[@]}"; do
		row "a guest that writes $share % of the link's rate, against its floor" "downtime.$share" "floor.$share" \
			atmost "$([[ $share == 20 ]] && echo 1.5)"
	done
	row_value "left to send at the pause, at 20 %" residual.20
	for part in "${parts[@]}"; do
		row_value "  of the downtime at 20 %: $part" "part.$part.20"
	done
	row_value "  in commit: one write to a journal on this disk, synced" sync
}

chart()
{
	lines "Downtime of a writing guest" "share of the link's rate that it writes, %" "" downtime="measured" floor="floor"
}
