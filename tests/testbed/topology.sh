# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What hardware a host is made of, as QEMU's options. One NUMA node and one link by default. With two nodes each has a CPU, half of the
# memory, and a PCI root bus of its own with a network device on it: the firmware's tables tell the node of a root bus, and
# nothing else gives a virtual device one. Link N is eth$N and rxe$N inside, on node N, and 10.0.$N.0/24.

# The bus of whatever belongs to no node. Without a name QEMU takes the newest bus, which may be a node's.
topology_common_bus()
{
	((nodes == 1)) && echo pci.0 || echo pcie.0
}

# How the emulator runs several CPUs: all on one thread. With a thread for each it may translate code that another CPU is patching
# and keep what it saw: when a static key of the kernel changes, as with a first vCPU, both CPUs then meet the patch's INT3 for ever.
topology_threads()
{
	((cpus == 1)) && echo multi || echo single
}

# Sets $hardware.
topology_set_machine()
{
	local node
	if ((nodes == 1)); then
		hardware=(-machine pc -smp "$cpus" -m "$memory_mib")
		return
	fi
	hardware=(-machine q35 -smp "$cpus,sockets=$nodes" -m "$memory_mib")
	for ((node = 0; node < nodes; node++)); do
		hardware+=(-object "memory-backend-ram,id=ram$node,size=$((memory_mib / nodes))M"
			-numa "node,nodeid=$node,memdev=ram$node"
			-numa "cpu,node-id=$node,socket-id=$node")
	done
	hardware+=(-numa dist,src=0,dst=1,val=21)
	# Linux finds the newest first and counts its network devices in that order.
	for ((node = nodes - 1; node >= 0; node--)); do
		hardware+=(-device "pxb-pcie,id=root$node,bus=pcie.0,bus_nr=$((32 * (node + 1))),numa_node=$node"
			-device "pcie-root-port,id=port$node,bus=root$node,chassis=$((node + 1))")
	done
}

# $1 host, $2 server=on or off: which end of the links this is. Sets $links.
topology_set_links()
{
	local host=$1 end=$2 link bus address=01
	[[ $host == B ]] && address=02
	links=()
	for ((link = 0; link < nodes; link++)); do
		((nodes == 1)) && bus=pci.0 || bus=port$link
		links+=(-netdev "stream,id=link$link,addr.type=unix,addr.path=$state/link$link,$end"
			-device "virtio-net-pci,bus=$bus,netdev=link$link,mac=52:54:00:00:0$link:$address,host_mtu=4200,rx_queue_size=1024,romfile=")
	done
}

# True once host A waits at every link.
topology_links_wait()
{
	local link
	for ((link = 0; link < nodes; link++)); do
		[[ -S $state/link$link ]] || return
	done
}

# $1 the facts that a host's agent has told. Sets boot_problem.
topology_check_facts()
{
	local link expected
	for ((link = 0; link < nodes; link++)); do
		expected="rxe$link 4: ACTIVE mtu 4200 node $link"
		((nodes == 1)) && expected=${expected/node 0/node -1}
		grep -qxF "$expected" <<<"$1" || {
			boot_problem="no '$expected' (active, with RoCE MTU 4096) but: $1"
			return 1
		}
	done
}
