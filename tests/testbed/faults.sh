# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the tests that break something. One guest goes through all cases of a script: it begins each at host $home, in a process
# that `inside` started as $kind, and is sent to host $away. After each case it migrates once more, undisturbed, so home and away
# change places now and then. What a case showed is one line of a table.

. "$(dirname "${BASH_SOURCE[0]}")/pair.sh"
home=A away=B kind=run
workload=hot=4M,rate=200
n_cases=0
patience=(--peer-timeout 4 --io-timeout 5) # emulated hosts stand still for a while now and then

trap 'clean_faults $?' EXIT
clean_faults()
{
	for host in A B; do
		on $host sh -c './witness unwatch; pkill -CONT -x ramlift; ./inside kill; tc qdisc del dev eth0 root 2>/dev/null; ip link set eth0 up'
	done
	(($1)) || echo "$n_cases cases in $SECONDS s"
}

swap()
{
	local host=$home
	home=$away away=$host kind=receive
}

# Commands of a shell, each host's in its $1 or $2, at the same time; what fails there ends the test with the words $3.
on_both()
{
	local other

	on "$away" bash -c "$2" &
	other=$!
	on "$home" bash -c "$1" || { wait $other; fail "$3"; }
	wait $other || fail "$3"
}

# Commands that begin anew: a guest (at host A), and somebody who waits for it. $1: their fault, or nothing
run_command="nice -n 5 ./inside run guest --memory 32M --workload $workload"
receive_command="./inside receive 7440 ${patience[*]}"
anew_run() { echo "./inside kill; RAMLIFT_FAULT=${1:-} $run_command"; }
anew_receive() { echo "./inside kill; RAMLIFT_FAULT=${1:-} $receive_command"; }

new_guest()
{
	home=A away=B kind=run
	on A bash -c "$(anew_run "${1:-}")" || fail "no guest"
}

await()
{
	on "$away" bash -c "$(anew_receive "${1:-}")" || fail "nobody waits"
}

# What the hosts' clocks are apart from this machine's: files in the share get their time from here.
offset()
{
	local there
	there=$(on "$1" bash -c ': >"$LOGS/clock"; echo "$EPOCHREALTIME"')
	awk "BEGIN { printf \"%.3f\", $(stat -c %.6Y "$logs/clock") - $there }"
}

declare -A clock
for host in A B; do
	clock[$host]=$(offset $host)
done

# What both processes hold is in the logs' folder then, by host.
begin_watch()
{
	on_both "$(watching $kind)" "$(watching receive)" "cannot watch"
	read -r held <"$logs/host$home.held"
}
watching() { echo "./witness holds $1 >\"\$LOGS/\$(hostname).held\" && ./witness watch $1 guest"; }

# How long nobody saw the guest get on, on either host, in $stood_still.
end_watch()
{
	on_both "./witness unwatch" "./witness unwatch" "cannot end the watch"
	stood_still=$(for host in A B; do
		awk -v "offset=${clock[$host]}" '{ printf "%.3f\n", $1 + offset }' "$logs/host$host.moments" 2>/dev/null
	done | sort -n | awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { printf "%.1f", gap }')
}

# What `ramlift migrate` said of the last attempt, "none" where it cannot have heard anything.
attempt_outcome()
{
	local said

	said=$(jq -r '.outcome // "none"' "$logs/host$home.result" 2>/dev/null)
	echo "${said:-none}"
}

# Send the guest away. An emulated host may be too busy to shake hands in time: then nothing has happened yet.
attempt()
{
	for _ in 1 2 3; do
		on "$home" ./witness attempt guest --to "host$away:7440" --transport rdma --lanes 2 --verify "${patience[@]}" "$@"
		grep -q "did not finish the handshake" "$logs/host$home.migrate.log" || break
	done
	outcome=$(attempt_outcome)
}

# The guest migrates, with nothing in the way.
migrate_again()
{
	move guest $home $away --transport rdma --lanes 2 --verify
	check_result rdma
	on "$away" ./witness goes_on guest || fail "it does not go on"
	swap
}

# $1 the case, $2 what came of it
report()
{
	((++n_cases))
	printf '%-36s %-44s stood still %5s s\n' "$1" "$2" "$stood_still"
}
