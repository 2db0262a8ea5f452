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
patience=(--peer-timeout 2 --io-timeout 3) # emulated hosts stand still for a while now and then

trap 'clean_faults $?' EXIT
clean_faults()
{
	for host in A B; do
		on $host ./witness unwatch
		on $host sh -c 'pkill -CONT -x ramlift; ./inside kill; tc qdisc del dev eth0 root; ip link set eth0 up' 2>/dev/null
	done
	(($1)) || echo "$n_cases cases in $SECONDS s"
}

swap()
{
	local host=$home
	home=$away away=$host kind=receive
}

# A new guest at host A. $1: its fault, or nothing
new_guest()
{
	home=A away=B kind=run
	on A ./inside kill
	on A env "RAMLIFT_FAULT=${1:-}" ./inside run guest --memory 32M --workload $workload || fail "no guest"
}

# $1: the fault of the side that waits, or nothing
await()
{
	on "$away" ./inside kill
	on "$away" env "RAMLIFT_FAULT=${1:-}" ./inside receive 7440 "${patience[@]}" || fail "nobody waits"
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

begin_watch()
{
	rm -f "$logs"/*.moments
	on "$home" ./witness watch guest
	on "$away" ./witness watch guest
}

# How long nobody saw the guest get on, on either host, in $stood_still.
end_watch()
{
	on "$home" ./witness unwatch
	on "$away" ./witness unwatch
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

# Send the guest away.
attempt()
{
	on "$home" ./witness attempt guest --to "host$away:7440" --transport rdma --lanes 2 --verify "${patience[@]}" "$@"
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
