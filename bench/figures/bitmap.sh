# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Dirty bitmaps without memory behind them; and a whole session of a sparse guest of 1 TiB over TCP, 1,000 MiB of it in use.

about="Bitmaps: 1,000 dirty pages of 1 TiB against 1 GiB, and the memory that a guest of 1 TiB takes beside its RAM"
ground_kind=local

measure()
{
	local json part gib

	json=$("$build/bench/bench_bitmap" --lanes 8 1 1024) || return 1
	for gib in 1 1024; do
		for part in mark fold collect; do
			sample "$part.$gib" us "$(jq ".sizes[] | select(.gib == $gib) | .${part}_ns / 1e3" <<<"$json")"
		done
	done
	sample all-dirty.rss MiB "$(jq '.all_dirty.rss_kib / 1024' <<<"$json")"
	sample all-dirty.walk ns/page "$(jq .all_dirty.cpu_ns_per_page <<<"$json")"
	json=$(instrument move --rss --transport tcp --lanes 8 --mib 1048576 --data-mib 1000 --rss) || return 1
	sample session.rss MiB "$(jq '[.source, .destination] | map(.rss_anonymous_kib) | max / 1024' <<<"$json")"
	sample session.downtime ms "$(jq '.source.session.downtime.total_ns / 1e6' <<<"$json")"
}

rows()
{
	row "collect 1,000 dirty pages of 1 TiB, against of 1 GiB" collect.1024 collect.1 atmost 2
	row "fold them in a tick" fold.1024 fold.1 atmost ""
	row "mark them" mark.1024 mark.1 atmost ""
	row_value "resident: 1 TiB, every page dirty twice over, 8 lanes" all-dirty.rss atmost 80
	row_value "resident: a session of 1 TiB, 1,000 MiB in use, 8 lanes" session.rss atmost 80
	row_value "CPU of 8 lanes for a dirty page, whole stripes" all-dirty.walk
	row_value "downtime of that session over TCP" session.downtime
}

chart()
{
	bars "1,000 dirty pages of 1 GiB and of 1 TiB" mark.1 mark.1024 fold.1 fold.1024 collect.1 collect.1024
}
