# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the demo and the benches: two sides, A and B, to run things on, wherever that is possible here.
# set_up native|testbed BUILD NAME, then `on A|B COMMAND...`; $to is B's address, $logs a folder that both see, $ground says in
# words where it all runs.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The first address of a network device that an RDMA device belongs to, as "device address".
rdma_address()
{
	local device netdev address

	for device in /sys/class/infiniband/*; do
		netdev=$(cat "$device/parent" 2>/dev/null || ls "$device/device/net" 2>/dev/null | head -1)
		[[ -n $netdev ]] || continue
		address=$(ip -4 -o addr show dev "$netdev" 2>/dev/null | awk '{ split($4, a, "/"); print a[1]; exit }')
		[[ -n $address ]] && echo "${device##*/} $address" && return
	done
	return 1
}

# $1 A or B, rest: a command. Natively the two sides differ in where they keep their sockets and journals.
on_native()
{
	local side=$1
	shift
	env "RAMLIFT=$ramlift" "LOGS=$logs" "RAMLIFT_RUNTIME_DIR=$logs/$side" "RAMLIFT_STATE_DIR=$logs/$side" "$@"
}

on_testbed()
{
	local side=$1
	shift
	"$here/testbed" exec "$side" -t 200 -- env "RAMLIFT=$ramlift" "LOGS=$logs" "TLS=${tls:-}" "$@"
}

set_up_native()
{
	read -r device to < <(rdma_address) || {
		echo "no RDMA device has an IPv4 address here: give its network device one"
		exit 1
	}
	logs=$(mktemp -d)
	mkdir -m 700 "$logs/A" "$logs/B"
	ground="this machine: RDMA device $device at $to, its own /dev/kvm, Linux $(uname -r)"
}

set_up_testbed()
{
	"$here/testbed" up || exit $?
	logs=$("$here/testbed" results)/$activity
	rm -rf "$logs"
	mkdir -p "$logs"
	to=10.0.0.2
	ground="the testbed: two hosts emulated by QEMU (no hardware acceleration), soft-RoCE (rdma_rxe) between
  them, nested KVM in each, Debian's Linux $("$here/testbed" exec A -- uname -r). All of it is slow; look at what happens, not at the rates."
}

# $1 mode, $2 build folder, $3 name of what is going on
set_up()
{
	mode=$1 build=$(realpath "$2") activity=$3
	ramlift=$build/kvm/vmm/ramlift
	cd "$here" || exit 1
	"set_up_$mode"
}

on()
{
	"on_$mode" "$@"
}

# Nothing of ours is left running; the testbed goes down.
clean_up()
{
	if [[ $mode == testbed ]]; then
		"$here/testbed" down >/dev/null
		return
	fi
	for side in A B; do
		on $side "$ramlift" stop "$activity" >/dev/null 2>&1
	done
	rm -rf "$logs"
}
