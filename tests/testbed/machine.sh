# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts, watches and stops the two hosts. Everything about a run is in $state: per host a pid file,
# the console's log and the doorbell's pipes; $share, which both hosts mount writable at this very
# path, holds the requests of exec.sh and the results of tests.

# $1 host. True while the emulator that we started runs: a pid alone may have been given to another.
machine_runs()
{
	local pid
	{ read -r pid <"$state/$1.pid"; } 2>/dev/null && grep -qsF "$state/$1.pid" "/proc/$pid/cmdline"
}

machine_is_up()
{
	machine_runs "$1" && [[ -e $share/$1/ready ]]
}

# $1 host, $2 server=on or off: its end of the links. -daemonize gives it a session of its own.
machine_start()
{
	local host=$1 hardware links bus
	bus=$(topology_common_bus)
	topology_set_machine
	topology_set_links "$host" "$2"
	rm -rf "${share:?}/$host" "$state/$host.pid" "$state/$host.doorbell."*
	mkdir -p "$share/$host/exec"
	mkfifo "$state/$host.doorbell.in" "$state/$host.doorbell.out"
	qemu-system-x86_64 -name "ramlift-$host" -daemonize -pidfile "$state/$host.pid" \
		-nodefaults -no-user-config -no-reboot -display none \
		"${hardware[@]}" -accel "tcg,thread=$(topology_threads)" -cpu max,+svm,-erms \
		-kernel "$image_tree/boot/kernel" -initrd "$image_initramfs" \
		-append "console=ttyS0 quiet mitigations=off nokaslr norandmaps panic=-1 tsc=reliable \
random.trust_cpu=on testbed.host=$host testbed.share=$share testbed.modules=$image_tree \
testbed.source=$source" \
		-serial "file:$state/$host.console" \
		-chardev "pipe,id=doorbell,path=$state/$host.doorbell" -serial chardev:doorbell \
		-fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
		-device "virtio-9p-pci,bus=$bus,fsdev=root,mount_tag=root" \
		-fsdev "local,id=share,path=$share,security_model=none,multidevs=remap" \
		-device "virtio-9p-pci,bus=$bus,fsdev=share,mount_tag=share" \
		"${links[@]}" \
		-device "virtio-rng-pci,bus=$bus" \
		</dev/null >"$state/$host.log" 2>&1 9>&- ||
		die 125 "cannot start host $host: $(tail -n 3 "$state/$host.log")"
}

# $1 host. Waits until it has gone, so that a new one finds the files free.
machine_stop()
{
	local pid tries
	if machine_runs "$1"; then
		read -r pid <"$state/$1.pid"
		kill -TERM "$pid"
		for ((tries = 0; tries < 50; tries++)); do
			machine_runs "$1" || break
			sleep 0.1
		done
		machine_runs "$1" && kill -KILL "$pid"
	fi
	rm -f "$state/$1.pid"
}

# Waits for both agents, for at most $1 seconds.
machine_wait_ready()
{
	local deadline=$((SECONDS + $1)) host
	for host in A B; do
		until machine_is_up $host; do
			machine_runs $host || { boot_problem="host $host stopped"; return 1; }
			((SECONDS < deadline)) || { boot_problem="host $host hangs"; return 1; }
			sleep 0.1
		done
	done
}

# What tests rely on, asked of the running hosts. Sets boot_problem.
machine_probe()
{
	local host facts link
	for host in A B; do
		facts=$(cat "$share/$host/ready")
		topology_check_facts "$facts" || { boot_problem="host $host: $boot_problem"; return 1; }
		[[ $facts == *kvm* ]] || { boot_problem="host $host has no /dev/kvm"; return 1; }
	done
	for ((link = 0; link < nodes; link++)); do
		# The caller's folder may not exist inside.
		(cd / && "$here/testbed" exec A -t 20 -- ping -c 1 -W 10 "10.0.$link.2") >"$state/ping.log" 2>&1 9>&- ||
			{ boot_problem="host A cannot reach host B at 10.0.$link.2"; return 1; }
	done
}

# The two are booted together, and again together: the link has to be connected anew by both.
machine_boot()
{
	local tries
	boot_problem=
	rm -f "$state"/link[01]
	machine_start A server=on
	for ((tries = 0; tries < 50; tries++)); do
		topology_links_wait && break
		sleep 0.1
	done
	machine_start B server=off
	machine_wait_ready 90 && machine_probe
}

# `down` removes the lock's file: what we hold must still be what others will open.
machine_lock()
{
	until [[ $state.lock -ef /dev/fd/9 ]]; do
		exec 9>"$state.lock"
		flock 9
	done
}

testbed_up()
{
	local attempt started=$SECONDS
	image_check
	if [[ ! -d $state ]]; then
		mkdir -p "${state%/*}" && mkdir -m 700 "$state" || die 125 "cannot create $state"
	fi
	[[ -O $state ]] || die 125 "$state belongs to another user"
	machine_lock
	mkdir -p "$share/results"
	if machine_is_up A && machine_is_up B; then
		machine_probe && { echo "testbed: already up"; return 0; }
		echo "testbed: booting again: $boot_problem" >&2
	fi
	image_prepare
	for attempt in 1 2; do
		machine_stop A
		machine_stop B
		if machine_boot; then
			echo "testbed: up after $((SECONDS - started)) s"
			return 0
		fi
		echo "testbed: boot $attempt failed: $boot_problem" >&2
		tail -n 5 "$state"/[AB].console >&2
	done
	machine_stop A
	machine_stop B
	die 125 "the hosts do not boot; their consoles are in $state"
}

testbed_down()
{
	[[ -d $state && -O $state ]] || { echo "testbed: not up"; return 0; }
	machine_lock
	machine_stop A
	machine_stop B
	# Nothing but our own: RAMLIFT_TESTBED_DIR may name a folder with other things in it.
	rm -rf "${share:?}" "$state"/[AB].{pid,log,console,doorbell.in,doorbell.out} "$state"/link[01] "$state/ping.log"
	rmdir --ignore-fail-on-non-empty "$state"
	rm -f "$state.lock"
	echo "testbed: down"
}

testbed_status()
{
	local host
	for host in A B; do
		if machine_is_up $host; then
			echo "$host up pid $(<"$state/$host.pid") $(tr '\n' ' ' <"$share/$host/ready")"
		elif machine_runs $host; then
			echo "$host booting pid $(<"$state/$host.pid")"
		else
			echo "$host down"
		fi
	done
}
