# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by bench/run: what figures are made of. A figure measures in runs; each run leaves samples by name, and what is
# compared is measured in turns within a run, so that a ratio is of things that happened next to each other.
#
#   sample NAME UNIT VALUE           one more value of that name, of this run
#   row TITLE NAME PEER SENSE LIMIT  a row of the table: the ratio of two medians, and its range over the runs
#   row_value TITLE NAME SENSE LIMIT the same for a value by itself
#   bars / lines                     the chart
#
# In these, $figure is the figure's name, $run the number of the run, $out the folder of results.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/testbed/ground.sh"

skip_reason=

# What a figure needs; false and $skip_reason where it is absent.
need()
{
	case $1 in
	kvm)
		skip_reason="no /dev/kvm that may be used here (none in User Mode Linux)"
		[[ -w /dev/kvm ]]
		;;
	guest)
		skip_reason="no /dev/kvm beside the RDMA device (none in User Mode Linux)"
		[[ $mode == testbed || -w /dev/kvm ]]
		;;
	qemu)
		skip_reason="no qemu-system-x86_64, the peer"
		command -v qemu-system-x86_64 >/dev/null
		;;
	one-host)
		skip_reason="both QEMUs have to be on one host, with an RDMA device of its own"
		[[ $mode == native ]]
		;;
	esac
}

# ---- samples ----

sample()
{
	[[ $3 =~ ^[0-9] ]] || { echo "bench: $figure: no figure for $1" >&2; failures=$((failures + 1)); return 1; }
	printf '{"figure":"%s","name":"%s","unit":"%s","run":%d,"value":%s}\n' "$figure" "$1" "$2" "$run" "$3" >>"$out/samples.jsonl"
}

# $1 name: its values in the order of runs; another figure's as FIGURE/NAME.
values()
{
	local of=$figure name=$1

	[[ $1 == */* ]] && of=${1%%/*} name=${1#*/}
	jq -r --arg f "$of" --arg n "$name" 'select(.figure == $f and .name == $n) | "\(.run) \(.value)"' "$out/samples.jsonl"
}

# $1 name -> "median min max unit count"
spread()
{
	jq -rs --arg f "$figure" --arg n "$1" '
		def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
		map(select(.figure == $f and .name == $n)) | if length == 0 then empty else
		"\(map(.value) | median) \(map(.value) | min) \(map(.value) | max) \(.[0].unit) \(length)" end' "$out/samples.jsonl"
}

# Of these names the one with the greatest median.
best_of()
{
	local name
	for name in "$@"; do
		echo "$(spread "$name") $name"
	done | awk 'NF == 6' | sort -g | awk 'END { print $NF }'
}

# ---- the table ----

# $1 SENSE, $2 value, $3 LIMIT: yes, no, or nothing where there is no limit
verdict()
{
	[[ -n $3 ]] || return 0
	awk -v v="$2" -v l="$3" -v s="$1" 'BEGIN { print ((s == "atleast") ? (v >= l) : (v <= l)) ? "yes" : "no" }'
}

limit_words()
{
	[[ -n $2 ]] || return 0
	case $1 in
	atleast) echo ">= $2" ;;
	atmost) echo "<= $2" ;;
	esac
}

# $1 title, $2 value column, $3 peer column, $4 ratio or value for the limit, $5 range, $6 sense, $7 limit
print_row()
{
	printf '%-58s %16s %16s %7s %15s %8s %4s\n' "$1" "$2" "$3" "$4" "$5" "$(limit_words "$6" "$7")" "$(verdict "$6" "$4" "$7")"
	jq -nc --arg figure "$figure" --arg title "$1" --arg value "$2" --arg peer "$3" --argjson ratio "${4:-null}" --arg range "$5" \
		--arg limit "$(limit_words "$6" "$7")" --arg met "$(verdict "$6" "$4" "$7")" \
		'{ figure: $figure, title: $title, value: $value, peer: $peer, ratio: $ratio, range: $range, limit: $limit,
		   met: (if $met == "" then null else $met == "yes" end) }' >>"$out/rows.jsonl"
}

number()
{
	awk -v v="$1" 'BEGIN { printf (v >= 1000 || v == 0) ? "%.0f" : (v >= 100) ? "%.1f" : (v >= 1) ? "%.2f" : "%.3f", v }'
}

# $1 title, $2 name, $3 peer's name, $4 atleast|atmost, $5 limit or nothing
row()
{
	local ours peer ratio range

	read -ra ours <<<"$(spread "$2")"
	read -ra peer <<<"$(spread "$3")"
	[[ -n ${ours[0]:-} && -n ${peer[0]:-} ]] || return 0
	ratio=$(awk "BEGIN { printf \"%.3f\", ${ours[0]} / ${peer[0]} }")
	range=$(join <(values "$2" | sort -k1,1) <(values "$3" | sort -k1,1) | awk '{ r = $2 / $3; if (NR == 1 || r < a) a = r; if (NR == 1 || r > b) b = r } END { printf "%.2f-%.2f", a, b }')
	print_row "$1" "$(number "${ours[0]}") ${ours[3]}" "$(number "${peer[0]}") ${peer[3]}" "$ratio" "$range" "$4" "${5:-}"
}

# $1 title, $2 name, $3 sense, $4 limit or nothing
row_value()
{
	local ours

	read -ra ours <<<"$(spread "$2")"
	[[ -n ${ours[0]:-} ]] || return 0
	print_row "$1" "$(number "${ours[0]}") ${ours[3]}" "" "$(number "${ours[0]}")" "$(number "${ours[1]}")-$(number "${ours[2]}")" "${3:-}" "${4:-}"
}

# ---- charts ----

chart_head()
{
	cat <<-GNUPLOT
	set terminal svg size 900,480 dynamic font "sans-serif,13" background "white"
	set output "$out/$figure.svg"
	set title "$1" noenhanced
	set ylabel "$2" noenhanced
	set grid ytics
	set rmargin 5
	GNUPLOT
}

# $1 title, rest: names, all of one unit. Medians, with the range of the runs.
bars()
{
	local title=$1 name n=0 unit='' line
	shift

	: >"$out/$figure.dat"
	for name in "$@"; do
		read -ra line <<<"$(spread "$name")"
		[[ -n ${line[0]:-} ]] || continue
		unit=${line[3]}
		printf '%d "%s" %s %s %s\n' $((n++)) "$name" "${line[0]}" "${line[1]}" "${line[2]}" >>"$out/$figure.dat"
	done
	((n)) || return 0
	{
		chart_head "$title" "$unit"
		cat <<-GNUPLOT
		set style fill solid 0.7 border -1
		set boxwidth 0.7
		set yrange [0:*]
		set xrange [-0.6:$n - 0.4]
		set rmargin 12; set xtics rotate by -30 noenhanced
		plot "$out/$figure.dat" using 1:3:xtic(2) with boxes notitle linecolor rgb "#4477aa", \
			"" using 1:3:4:5 with yerrorbars notitle linecolor rgb "#222222" pointtype 0
		GNUPLOT
	} | gnuplot
	rm -f "$out/$figure.dat"
}

# $1 title, $2 x label, $3 scale of x (log or nothing), rest: PREFIX=WORDS; the samples PREFIX.X are points at X of that line.
lines()
{
	local title=$1 label=$2 scale=$3 series name plot='' unit='' line
	shift 3

	rm -f "$out/$figure".*.dat
	for series in "$@"; do
		while read -r name; do
			read -ra line <<<"$(spread "$name")"
			unit=${line[3]}
			echo "${name##*.} ${line[0]} ${line[1]} ${line[2]}"
		done < <(jq -r --arg f "$figure" --arg p "${series%%=*}." 'select(.figure == $f and (.name | startswith($p))) | .name' "$out/samples.jsonl" | sort -u) |
			sort -g >"$out/$figure.${series%%=*}.dat"
		[[ -s $out/$figure.${series%%=*}.dat ]] || continue
		plot+="${plot:+, }\"$out/$figure.${series%%=*}.dat\" using 1:2:3:4 with yerrorlines title \"${series#*=}\" linewidth 2"
	done
	[[ -n $plot ]] || return 0
	unit=$(jq -r --arg f "$figure" --arg p "${series%%=*}." 'select(.figure == $f and (.name | startswith($p))) | .unit' "$out/samples.jsonl" | head -1)
	{
		chart_head "$title" "$unit"
		[[ $scale == log ]] && echo "set logscale x"
		echo "set xlabel \"$label\" noenhanced"
		echo "set yrange [0:*]"
		echo "set key top left noenhanced"
		echo "plot $plot"
	} | gnuplot
	rm -f "$out/$figure".*.dat
}

# ---- our own instruments, and ib_write_bw ----

# $1 tool (lanes, move), $2 options of its receiver, rest: of its sender. Prints its line of JSON.
instrument()
{
	local tool=$build/bench/bench_$1 receiver=$2 server
	shift 2

	# shellcheck disable=SC2086
	on B "$tool" receive "$to" $receiver >"$logs/receiver.log" 2>&1 &
	server=$!
	if ! on A "$tool" send "$to" "$@" >"$logs/sender.log" 2>&1 || ! grep -h '^{' "$logs/sender.log"; then
		cat "$logs/receiver.log" "$logs/sender.log" >&2
		kill $server 2>/dev/null
		wait $server
		return 1
	fi
	wait $server
}

# $1 size, $2 queue pairs, $3 bytes to send, rest: more arguments. Prints "MiB/s CPU-seconds", both processes together.
ib_write_bw()
{
	local size=$1 iterations=$(($3 / $1 / $2)) server
	local arguments=(-s "$size" -q "$2" -n "$iterations" -F "${@:4}") timed='TIMEFORMAT="cpu %U %S"; time ib_write_bw "$@"'

	[[ $mode == testbed ]] && arguments+=(-u 18) # no retries just because an emulator is slow
	on B bash -c "$timed" ib_write_bw "${arguments[@]}" >"$logs/receiver.log" 2>&1 &
	server=$!
	sleep "$settle"
	if ! on A bash -c "$timed" ib_write_bw "${arguments[@]}" "$to" >"$logs/sender.log" 2>&1; then
		cat "$logs/sender.log" >&2
		kill $server 2>/dev/null
		wait $server
		return 1
	fi
	wait $server
	awk -v s="$size" '$1 == s { rate = $4 } $1 == "cpu" { cpu += $2 + $3 } END { if (rate > 0) print rate, cpu }' \
		"$logs/sender.log" "$logs/receiver.log"
}

# ---- where it all runs ----

# A device here, or else two hosts in the testbed.
ground_rdma()
{
	[[ ${ground_now:-} == rdma ]] && return
	leave_ground
	if [[ -n $(ls /sys/class/infiniband 2>/dev/null) ]]; then
		set_up native "$build_dir" bench
		settle=0.3 ground="this machine: RDMA device $device at $to, Linux $(uname -r)"
	else
		set_up testbed "$build_dir" bench
		settle=2
	fi
	ground_now=rdma
}

# This machine, without RDMA.
ground_local()
{
	[[ ${ground_now:-} == local ]] && return
	leave_ground
	mode=native build=$build_dir activity=bench to=127.0.0.1 settle=0.3
	ramlift=$build/kvm/vmm/ramlift
	logs=$(mktemp -d)
	mkdir -m 700 "$logs/A" "$logs/B"
	ground="this machine, Linux $(uname -r)"
	ground_now=local
}

leave_ground()
{
	[[ -n ${ground_now:-} ]] || return 0
	type stop_qemus >/dev/null 2>&1 && stop_qemus
	clean_up
	[[ -n ${memory:-} ]] && rm -rf "$memory"
	memory=
	ground_now=
}
