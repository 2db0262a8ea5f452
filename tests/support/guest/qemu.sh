# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by whatever runs the keeper in QEMU, on this machine or inside a host of the testbed. It knows QEMU and nothing of
# Ramlift. Set before: $guest, a folder that `make` has filled, and $run, a folder for sockets and the like. A guest NAME has there
#   NAME.qmp     the QMP socket for the command under test     NAME.serial  what the guest says
#   NAME.test    the QMP socket for the test itself            NAME.log     what QEMU says
#   NAME.pid

# Start QEMU with the keeper, its RAM in a shared memfd. Ready for `qemu_qmp` when it returns.
# $1 name, $2 accelerator, $3 MiB, $4 options of the keeper (as in "cold=32 hot=16"), rest: more for QEMU
qemu_start()
{
	local name=$1 accelerator=$2 mib=$3 keeper='' cpu=host word
	shift 3
	for word in $1; do
		keeper+=" keeper.$word"
	done
	shift
	[[ $accelerator == tcg* ]] && cpu=max
	rm -f "$run/$name".{qmp,test,serial,pid}
	qemu-system-x86_64 -name "$name" -daemonize -pidfile "$run/$name.pid" \
		-nodefaults -no-user-config -no-reboot -display none \
		-object "memory-backend-memfd,id=ram,size=${mib}M,share=on" -machine pc,memory-backend=ram \
		-accel "$accelerator" -cpu "$cpu" -m "${mib}M" \
		-kernel "$guest/kernel" -initrd "$guest/initramfs" \
		-append "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable$keeper" \
		-serial "file:$run/$name.serial" \
		-qmp "unix:$run/$name.qmp,server=on,wait=off" -qmp "unix:$run/$name.test,server=on,wait=off" \
		"$@" </dev/null >"$run/$name.log" 2>&1
}

qemu_pid()
{
	cat "$run/$1.pid" 2>/dev/null
}

# A pid alone may have been given to another.
qemu_is_alive()
{
	local pid

	pid=$(qemu_pid "$1") && grep -qsF "$run/$1.pid" "/proc/$pid/cmdline"
}

# One command by QMP: what it returns, as JSON, or status 1 and what QEMU says is wrong.
# $1 name, $2 command, $3 its arguments as JSON
qemu_qmp()
{
	local arguments=${3:-'{}'} answer='' socat

	coproc SOCAT { exec socat - "UNIX-CONNECT:$run/$1.test" 2>/dev/null; }
	socat=$SOCAT_PID
	printf '%s\n' '{"execute":"qmp_capabilities"}' "{\"execute\":\"$2\",\"arguments\":$arguments,\"id\":\"test\"}" \
		>&"${SOCAT[1]}"
	while read -r -t 60 -u "${SOCAT[0]}" answer && [[ $answer != *'"id": "test"'* ]]; do
		answer=''
	done
	kill "$socat" 2>/dev/null
	wait "$socat" 2>/dev/null
	[[ -n $answer ]] || { echo "$1 does not answer $2"; return 1; }
	jq -c 'if .error then .error.desc else .return end' <<<"$answer"
	[[ $answer == *'"return"'* ]]
}

# "running", "paused", "inmigrate", "postmigrate", ...
qemu_status()
{
	qemu_qmp "$1" query-status | jq -r '.status? // "unknown"'
}

# $1 name, $2 one of sweeps, verified, written, failures: the keeper's last word on it, nothing before its first
keeper_says()
{
	sed -n "s/\r\$/ /; s/^keeper: .*\<$2 \([0-9]*\) .*/\1/p" "$run/$1.serial" 2>/dev/null | tail -n 1
}

keeper_has_stamped()
{
	! qemu_is_alive "$1" || grep -qs '^keeper: stamped' "$run/$1.serial"
}

keeper_has_spoken()
{
	[[ -n $(keeper_says "$1" sweeps) ]]
}

# $1 name, $2 sweeps
keeper_has_swept()
{
	local sweeps

	sweeps=$(keeper_says "$1" sweeps)
	((${sweeps:-0} >= $2))
}

# The file that is all of the guest's RAM.
qemu_ram()
{
	local fd

	for fd in "/proc/$(qemu_pid "$1")/fd"/*; do
		[[ $(readlink "$fd") != "/memfd:memory-backend-memfd"* ]] || { echo "$fd"; return; }
	done
	return 1
}

# For comparing two guests while both are paused, with no KVM clock in them.
qemu_digest()
{
	sha1sum <"$(qemu_ram "$1")" | cut -d ' ' -f 1
}

# Is the RAM of a paused guest what the file has? KVM writes each vCPU's clock, 32 bytes in a cache line of their own, when the
# destination's QEMU loads the vCPU's state: so much may differ. Says which pages do otherwise.
# $1 name, $2 file, $3 vCPUs
qemu_has_ram_of()
{
	local ram

	ram=$(qemu_ram "$1") && [[ $(stat -Lc %s "$ram") == "$(stat -c %s "$2")" ]] || { echo "no RAM of that size"; return 1; }
	cmp -l "$2" "$ram" | head -n 100000 | awk -v "vcpus=$3" '
		{ at = $1 - 1; pages[int(at / 4096)]; lines[int(at / 64)]; outside += at % 64 >= 32 }
		END {
			if (length(lines) <= vcpus && !outside)
				exit 0
			for (page in pages)
				if (n++ < 10)
					printf "page %d (0x%x) differs\n", page, page * 4096
			printf "%d pages differ\n", n
			exit 1
		}'
}

# Ends the emulator, however it is. The guest's output stays.
qemu_kill()
{
	local pid

	qemu_is_alive "$1" || return 0
	pid=$(qemu_pid "$1")
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.1
	done
}

# QEMU's own migration, as a peer. $1 name, $2 channels of multifd, 0: without it
qemu_set_channels()
{
	local multifd=true

	(($2)) || multifd=false
	qemu_qmp "$1" migrate-set-capabilities "{\"capabilities\":[{\"capability\":\"multifd\",\"state\":$multifd}]}" >/dev/null &&
		qemu_qmp "$1" migrate-set-parameters "{\"multifd-channels\":$(($2 ? $2 : 2))}" >/dev/null
}

# $1 name, $2 URI, $3 channels
qemu_listen()
{
	qemu_set_channels "$1" "$3" && qemu_qmp "$1" migrate-incoming "{\"uri\":\"$2\"}"
}

# Until the end, good or bad: prints what query-migrate says then.
# $1 name, $2 URI, $3 channels
qemu_migrate()
{
	local state

	qemu_set_channels "$1" "$3" &&
		qemu_qmp "$1" migrate-set-parameters '{"max-bandwidth":10000000000}' >/dev/null &&
		qemu_qmp "$1" migrate "{\"uri\":\"$2\"}" >/dev/null || return 1
	while state=$(qemu_qmp "$1" query-migrate); do
		[[ $(jq -r .status <<<"$state") =~ ^(completed|failed|cancelled)$ ]] && break
		sleep 0.2
	done
	echo "$state"
	[[ $(jq -r .status <<<"$state") == completed ]]
}
