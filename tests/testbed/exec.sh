# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs one command on one host. A request is a folder in the share: `command` (arguments, quoted for a
# shell), `folder` and `limit` go in, `output` and `status` come out. A line on the host's doorbell, a
# serial port behind a named pipe, tells the agent its name. Requests are independent of each other,
# so any number may run at once; a line is shorter than PIPE_BUF, so two never mix.

# $1 host, $2 verb, $3 request. Opened for both ways: never blocks, even if the emulator has gone.
exec_ring()
{
	echo "$2 $3" 1<>"$state/$1.doorbell.in"
}

# Single quotes are what every shell reads alike; bash's own ${x@Q} may give $'...'.
exec_quote()
{
	local word
	for word; do
		printf "'%s' " "${word//\'/\'\\\'\'}"
	done
}

# A caller that was killed outright could not end its command: the next caller does it.
exec_reap_orphans()
{
	local owner request pid
	for owner in "$share/$1"/exec/*/owner; do
		read -r pid <"$owner" || continue
		kill -0 "$pid" && continue
		request=${owner%/owner}
		exec_ring "$1" kill "${request##*/}"
		rm -rf "$request"
	done 2>/dev/null
}

# Returns when the request has a status, the host is gone, or the deadline is long past.
exec_wait_status()
{
	local host=$1 request=$2 deadline=$3 pid never
	read -r pid <"$state/$host.pid"
	exec {never}<> <(:)
	while [[ ! -s $request/status ]]; do
		kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)) || return 1
		read -r -t 0.03 -u "$never"
	done
	return 0
}

# $1 host, $2 request, $3 this end's own exit status.
exec_cancel()
{
	trap '' TERM INT HUP
	exec_ring "$1" kill "${2##*/}"
	exec_wait_status "$1" "$2" $((SECONDS + 10)) || echo "testbed: the command may still run" >&2
	kill "$waiter" 2>/dev/null
	wait "$tail" 2>/dev/null
	rm -rf "$2"
	exit "$3"
}

testbed_exec()
{
	local host limit=120 request status
	parse_host "${1:-}"
	shift
	while [[ ${1:-} == -t ]]; do
		limit=${2:-}
		[[ $limit =~ ^[1-9][0-9]*$ ]] || die 125 "-t takes a number of seconds"
		shift 2
	done
	[[ ${1:-} == -- ]] && shift
	(($# > 0)) || die 125 "no command"
	machine_is_up "$host" || die 125 "host $host is not up: run 'testbed up' first"

	exec_reap_orphans "$host"
	request=$(mktemp -d "$share/$host/exec/XXXXXXXX") || die 125 "cannot write to $share"
	echo $$ >"$request/owner"
	exec_quote "$@" >"$request/command"
	pwd >"$request/folder"
	echo "$limit" >"$request/limit"
	: >"$request/output"

	# The waiter's end tells tail to read to the end of the output and stop.
	exec_wait_status "$host" "$request" $((SECONDS + limit + 20)) </dev/null >/dev/null &
	waiter=$!
	tail -c +1 -f -s 0.05 --pid=$waiter "$request/output" 2>/dev/null &
	tail=$!
	trap 'exec_cancel "$host" "$request" 143' TERM HUP
	trap 'exec_cancel "$host" "$request" 130' INT
	exec_ring "$host" run "${request##*/}"
	wait "$waiter"
	wait "$tail"
	trap - TERM INT HUP

	if read -r status <"$request/status" 2>/dev/null; then
		rm -rf "$request"
		exit "$status"
	fi
	exec_ring "$host" kill "${request##*/}"
	rm -rf "$request"
	machine_runs "$host" || die 125 "host $host stopped; its console is in $state/$host.console"
	echo "testbed: host $host does not answer" >&2
	exit 124
}
