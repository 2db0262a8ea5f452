# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Two sides of the command on this machine, A and B, each with directories of its own. Sourced by tests: NAME BUILD SCENARIO

ramlift=$(realpath "$1")/kvm/vmm/ramlift
scenario=$2
[[ -w /dev/kvm ]] || { echo "skipped: /dev/kvm is missing or not writable"; exit 77; }

work=$(mktemp -d)
port=$((20000 + $$ % 20000))
started=()
trap 'kill -9 "${started[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
mkdir -m 700 "$work/A" "$work/B"

fail()
{
	echo "FAILED: $1"
	tail -n 20 "$work"/*.log
	exit 1
}

# $1 side, rest: a ramlift command
on()
{
	local side=$1
	shift
	RAMLIFT_RUNTIME_DIR=$work/$side RAMLIFT_STATE_DIR=$work/$side "$ramlift" "$@"
}

# In the background; its pid is in $pid, its output in <side>.log.
start()
{
	local side=$1
	shift
	RAMLIFT_RUNTIME_DIR=$work/$side RAMLIFT_STATE_DIR=$work/$side "$ramlift" "$@" >"$work/$side.log" 2>&1 &
	pid=$!
	started+=($pid)
}

# $1 tenths of a second, rest: a command that must succeed within them
within()
{
	local tenths=$1
	shift
	while ! "$@"; do
		((tenths-- > 0)) || return 1
		sleep 0.1
	done
}

listens()
{
	[[ -n $(ss -Hltn "sport = :$port") ]]
}

# $1 side, $2 a jq expression
status()
{
	on "$1" status guest --json 2>/dev/null | jq -r "$2"
}

verified()
{
	local pages

	pages=$(status "$1" '.guest_check.pages_verified // 0')
	echo "${pages:-0}"
}

has_verified()
{
	(($(verified "$1") >= $2))
}

has_ended()
{
	! kill -0 "$1" 2>/dev/null
}

start_receive()
{
	start B receive --listen "127.0.0.1:$port" "$@"
	receiver=$pid
	within 100 listens || fail "nobody listens"
}

start_run()
{
	start A run --name guest --memory 64M "$@"
	runner=$pid
	within 200 has_verified A 1 || fail "the guest does not stamp its memory"
}

# The guest on side $1 has not lost a page, and gets through all of them from here on.
goes_on()
{
	local pages=16384

	within 300 has_verified "$1" $(($(verified "$1") + pages)) || fail "the guest does not go on: $(status "$1" .)"
	[[ $(status "$1" .state) == running ]] || fail "the guest does not run: $(status "$1" .)"
	[[ $(status "$1" .guest_check.failures) == 0 ]] || fail "the guest lost pages: $(status "$1" .)"
}

# Guest memory of process $1, of whatever pages, is not written to core dumps.
stays_out_of_dumps()
{
	local flags

	flags=$(awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = /ramlift-guest/ } guest && /^VmFlags/' "/proc/$1/smaps")
	[[ -n $flags ]] || fail "process $1 has no guest memory"
	! grep -qvw dd <<<"$flags" || fail "guest memory would be dumped: $flags"
}

migrate()
{
	on A migrate guest --to "127.0.0.1:$port" --transport tcp --quiet --json "$@" >"$work/result" 2>"$work/migrate.log"
}

# A migration so slow that there is time to do something to it.
start_slow_migration()
{
	start_receive
	start_run --workload hot=8M,rate=500
	migrate --bandwidth 4M &
	migration=$!
	within 50 is_streaming || fail "nothing flows"
}

is_streaming()
{
	[[ $(status A .state) == migrating ]] && (($(status A '.migration.bytes_sent // 0') > 1000000))
}

# $1 words of the sentence, rest: the command. One line, status not 0.
refused()
{
	local words=$1 status
	shift
	"$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
	((status > 0 && status < 128)) || fail "status $status: $*"
	grep -q -- "$words" "$work/err" || fail "'$words' is missing: $* says: $(<"$work/err")"
	(($(wc -l <"$work/err") <= 2)) || fail "too many words: $(<"$work/err")"
	echo "$(head -1 "$work/err")"
}
