# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the tests that move guests between hosts A and B of the testbed. $1 of the sourcing script is the build folder.

. "$(dirname "${BASH_SOURCE[0]}")/ground.sh"
set_up testbed "$1" "${0##*/}"
shift

declare -A address=([A]=10.0.0.1 [B]=10.0.0.2)

# The hosts prove to each other who they are. A script that sets tls to nothing trusts the network instead.
tls=$("$here/testbed" results)/tls
[[ -s $tls/ca/ca.pem ]] || "$here/../support/certificates" "$tls/ca" || exit 1
for host in A B; do
	[[ -s $tls/host$host/cert.pem ]] || "$here/../support/certificates" "$tls/ca" "$tls/host$host" "host$host" || exit 1
done

# The ramlift command on a host.
ramlift_on()
{
	local host=$1
	shift
	on "$host" "$ramlift" "$@"
}

fail()
{
	echo "FAILED: $1"
	tail -n 20 "$logs"/*.log 2>/dev/null
	exit 1
}

# As a trap: leave nothing behind after a failure.
clean_hosts()
{
	(($?)) || return
	on A ./inside kill
	on B ./inside kill
}

# Move guest $1 from host $2 to host $3 with further options; its result is in $result, as JSON.
move()
{
	local guest=$1 from=$2 to=$3
	shift 3
	result=$(on "$from" ./inside move "$guest" --to "host$to:7440" "$@")
	[[ $(jq -r '.outcome' <<<"$result") == done ]] || fail "the migration failed: $result"
}

# What the result must say with --verify.
check_result()
{
	[[ $(jq -r '.verified' <<<"$result") == true ]] || fail "not verified: $result"
	[[ $(jq -r '.guest_check.failures' <<<"$result") == 0 ]] || fail "the guest had lost pages before: $result"
	[[ $(jq -r '.transport' <<<"$result") == "$1" ]] || fail "not over $1: $result"
}

# One line of figures.
summary()
{
	jq -r '"\(.transport), \(.lanes | length) lanes: \(.bytes_sent / 1048576 | floor) MiB in \(.elapsed_ns / 1e6 | floor) ms, \(
		.passes) passes, downtime \(.downtime.total_ns / 1e6 | floor) ms (digests \(.downtime.verify_ns / 1e6 | floor) ms)"' <<<"$result"
}
