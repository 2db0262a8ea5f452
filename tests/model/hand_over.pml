/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over of a guest (rule 7) as a model for spin: both sides, their journals and their lock, the connections
 * between them, and what can go wrong. tests/model/run checks it; docs/protocol.md, "The model", says what that shows.
 *
 *   here                      there
 *   source                    core/source_run.c, source_switch.c; from "doubt:" on source_settle.c, and doubt.c, which is
 *                             what `ramlift resolve` does after the source's process has died
 *   destination               core/destination_run.c, destination_journal.c
 *   answerer                  destination_answer() in core/destination_journal.c: a thread of the destination, or a later
 *                             `ramlift receive` with the same state directory; what it shares with the session is on disk
 *   source_phase              the phases of core/phase.c; PREPARE is part of STREAM
 *   source_journal,           <state_dir>/<guest>.journal of each side, the last event of each session. A line is there
 *   destination_journal       or it is not, and has been synced before the next step: core/journal.c takes care of that
 *   lock                      flock(2) on <state_dir>/<guest>.lock, which the kernel releases when its holder dies
 *   to_destination, to_source the control connection: in order, nothing twice; when it breaks, what is under way may be lost
 *   stranger                  somebody who sends again, on a connection of his own, what he has seen pass
 *   fate                      breaks connections and kills processes, at any step
 *
 * A session's id and its generation are one number here. Delay and SIGSTOP need no statement: a process that does not
 * move for as long as spin likes is both. A deadline may pass at any time. When a side's process dies, its guest may die
 * with it (`ramlift run`) or stay as it was (QEMU, moved by a proxy).
 *
 * Assumed: an operator, and a fence command, say "source" only when the destination has not run the guest and its process
 * is gone, and "destination" only when the destination's journal says so.
 */
#ifndef SESSIONS
#define SESSIONS 2
#endif

/*
 * What a run allows, -D each:
 *   SESSIONS=n       attempts to move the guest
 *   FAULTS=n         so much goes wrong in all; without it, as often as spin likes
 *   STRANGER_CALLS   the stranger sends again what he has seen
 *   STRANGER_ASKS    and asks about any session
 *   FAIR             for claims that something ends: nothing needs to go wrong
 *   COMES_BACK       what has died is started again; there is neither operator nor fence command
 *   MUTATE_...       an error, which spin has to find
 */
#ifdef FAULTS
byte faults = FAULTS;
#define CAN_FAIL (faults > 0)
#define FAULT	 CAN_FAIL -> faults--
#else
#define CAN_FAIL true
#define FAULT	 true -> skip
#endif
#ifdef COMES_BACK
#define STAY_DEAD false
#else
#define STAY_DEAD true
#endif

/* Messages. */
mtype = { OFFER, ACCEPT, FINAL, PREPARED, COMMIT, STARTED, ABORT };
mtype = { ASK, SAYS_STARTED, SAYS_NEVER, SAYS_PENDING, SAYS_UNKNOWN };
/* Phases. */
mtype = { IDLE, LISTEN, PREFLIGHT, STREAM, STOP_AND_COPY, HAND_OVER, COMMITTED, DONE, FAILED, IN_DOUBT };
/* Events of the journals. */
mtype = { NOTHING, BEGUN, COMMIT_WRITTEN, STARTED_HEARD, REFUSED, RESOLVED_SOURCE, RESOLVED_DESTINATION };
mtype = { RECEIVE, STARTED_WRITTEN, DISCARDED };
/* The source's copy of the guest. */
mtype = { RUNS, PAUSED, GONE };
/* Who has connected to the destination; who holds the lock. */
mtype = { NOBODY, SOURCE, STRANGER, DESTINATION, ANSWERER };

/* On disk. */
mtype source_journal[SESSIONS + 1] = NOTHING;
mtype destination_journal[SESSIONS + 1] = NOTHING;
mtype lock = NOBODY;

/* The guest. */
mtype source_guest = RUNS;
byte destination_guests = 0; /* that run there */
byte lanes_open = 0;	     /* the session whose lanes may still write into its guest at the destination */

/* The processes. */
bool source_up = true, destination_up = true, answerer_up = true;
mtype source_phase = IDLE;
mtype destination_phase = LISTEN;
byte last_session = 0;	/* the highest generation in the source's journal */

/* The connections. */
mtype caller = NOBODY;
bool linked = false, ask_linked = false;
chan to_destination = [2] of { mtype, byte };
chan to_source = [2] of { mtype };
chan asked = [1] of { byte };
chan answers = [1] of { mtype, byte };

/* What was seen: for the stranger, and for the claims. */
bool sent_final[SESSIONS + 1], sent_commit[SESSIONS + 1];
bool has_run[SESSIONS + 1];	 /* at the destination */
bool refused[SESSIONS + 1];	 /* ABORT after COMMIT, heard by the source */
bool said_never[SESSIONS + 1];	 /* ANSWERs */
bool said_started[SESSIONS + 1];
bool lost = false;		 /* a copy has died with its process, or the power was cut */

#define source_cut	(caller != SOURCE || !linked)
#define listening	(destination_up && destination_phase == LISTEN && caller == NOBODY)
#define never_ran(s)	(!has_run[s] && destination_journal[s] != STARTED_WRITTEN)

/*
 * The claims. Nothing runs only: during the switchover, which the source, or between its STARTED line and the first
 * instruction the destination, bounds; in doubt; when the process that owns the guest has died.
 */
#define running	       ((source_guest == RUNS) + destination_guests)
#define switching      (source_phase == STOP_AND_COPY || source_phase == HAND_OVER || source_phase == COMMITTED || destination_phase == COMMITTED)
#define declared       (switching || source_phase == IN_DOUBT || lost || (!source_up && source_guest == PAUSED))
#define contradicts(s) ((refused[s] && has_run[s]) || (said_never[s] && (has_run[s] || destination_journal[s] == STARTED_WRITTEN)) || \
			(said_started[s] && destination_journal[s] != STARTED_WRITTEN))
#define resting	       (source_phase == IDLE || source_phase == DONE || source_phase == FAILED)

ltl never_two { [] (running <= 1) }
ltl none_only_declared { [] (running >= 1 || declared) }
ltl answers_stay_true { [] !(contradicts(1) || contradicts(SESSIONS)) }
ltl fenced { [] !has_run[lanes_open] }
ltl safe { [] (running <= 1 && (running >= 1 || declared) && !(contradicts(1) || contradicts(SESSIONS)) && !has_run[lanes_open]) }
ltl ends { <> [] ((resting || source_phase == IN_DOUBT || !source_up) && (destination_phase == LISTEN || !destination_up)) }
ltl doubt_ends { <> [] (resting && source_up) }

#define FLUSH(queue)                       \
	do                                 \
	:: len(queue) > 0 -> queue?_, _    \
	:: len(queue) == 0 -> break        \
	od

#define FLUSH_TO_SOURCE                    \
	do                                 \
	:: len(to_source) > 0 -> to_source?_ \
	:: len(to_source) == 0 -> break    \
	od

/* What is sent into a broken connection is gone. */
inline tell_destination(type)
{
	if
	:: !source_cut && len(to_destination) < 2 -> to_destination!type, s
	:: else
	fi
}

inline tell_source(type)
{
	if
	:: caller == SOURCE && linked && len(to_source) < 2 -> to_source!type
	:: else
	fi
}

inline hang_up()
{
	FLUSH_TO_SOURCE;
	if
	:: caller == SOURCE -> linked = false
	:: else
	fi
}

/* The source's guest runs again, if it still exists. */
inline resume(phase)
{
	if
	:: source_guest == PAUSED -> source_guest = RUNS
	:: else
	fi;
	source_phase = phase
}

/* The source has given the guest away for good. */
inline let_go()
{
	source_guest = GONE;
	source_phase = DONE
}

/* The destination's process dies, and its guest with it, or not. */
inline kill_destination()
{
	if
	:: destination_up ->
		destination_up = false;
		lost = lost || destination_phase == COMMITTED || destination_phase == FAILED;
		if
		:: destination_guests > 0 -> destination_guests = 0; lost = true
		:: true
		fi;
		if
		:: lock == DESTINATION -> lock = NOBODY
		:: else
		fi;
		FLUSH(to_destination);
		if
		:: caller == SOURCE -> FLUSH_TO_SOURCE
		:: true
		fi;
		caller = NOBODY;
		linked = false;
		lanes_open = 0;
		destination_phase = LISTEN
	:: else
	fi
}

inline kill_answerer()
{
	if
	:: answerer_up ->
		answerer_up = false;
		ask_linked = false;
		if
		:: lock == ANSWERER -> lock = NOBODY
		:: else
		fi;
		FLUSH(answers);
		if
		:: len(asked) > 0 -> asked?_
		:: else
		fi
	:: else
	fi
}

active proctype source()
{
	byte s;
	mtype said;

start:
	{
		/* Of a process that has died the journal tells; `ramlift resolve` reads it. */
		atomic {
			s = last_session;
			if
			:: source_journal[s] == COMMIT_WRITTEN -> source_phase = IN_DOUBT; goto doubt
			:: source_journal[s] == STARTED_HEARD || source_journal[s] == RESOLVED_DESTINATION ->
				let_go();
				goto over
			:: else -> resume(IDLE)
			fi
		};

again:
		if
		:: atomic { source_guest == RUNS && last_session < SESSIONS ->
			last_session++; s = last_session; source_journal[s] = BEGUN; source_phase = PREFLIGHT }
		:: goto over /* moves no more; or the journal cannot be written */
		fi;
		if
		:: atomic { listening -> caller = SOURCE; linked = true; tell_destination(OFFER) }
		:: !listening -> goto failed
		:: atomic { FAULT; goto failed }
		fi;
		if
		:: atomic { to_source?ACCEPT -> source_phase = STREAM }
		:: to_source?ABORT -> goto failed
		:: source_cut && empty(to_source) -> goto failed
		:: atomic { FAULT; goto failed } /* a deadline, or a cancel; also below */
		fi;

		/* Pause, the rest of memory, tokens, state. */
		if
		:: atomic { source_guest = PAUSED; source_phase = HAND_OVER; sent_final[s] = true;
			tell_destination(FINAL) }
		:: to_source?ABORT -> goto failed
		:: atomic { FAULT; goto failed }
		fi;
		if
#ifdef MUTATE_COMMIT_SENT_BEFORE_JOURNAL
		:: atomic { to_source?PREPARED -> sent_commit[s] = true; tell_destination(COMMIT) };
			atomic { source_journal[s] = COMMIT_WRITTEN; source_phase = COMMITTED; goto committed }
#endif
		:: atomic { to_source?PREPARED ->
			if
			:: source_journal[s] = COMMIT_WRITTEN; source_phase = COMMITTED
#ifdef MUTATE_COMMIT_SENT_WITHOUT_JOURNAL
			:: FAULT; source_phase = COMMITTED
#else
			:: FAULT; goto failed
			:: FAULT; source_journal[s] = COMMIT_WRITTEN; goto failed /* there, but the sync failed */
			:: FAULT; source_journal[s] = REFUSED; goto failed
#endif
			fi }
		:: to_source?ABORT -> goto failed
		:: source_cut && empty(to_source) -> goto failed
		:: atomic { FAULT; goto failed }
		fi;
		atomic { sent_commit[s] = true; tell_destination(COMMIT) };

committed:
#ifdef MUTATE_FREED_AFTER_COMMIT
		atomic { let_go(); goto over };
#endif
		if
		:: atomic { to_source?STARTED ->
			if
			:: source_journal[s] = STARTED_HEARD
			:: FAULT /* it is for the record only */
			fi;
			hang_up(); let_go(); goto over }
		:: atomic { to_source?ABORT -> refused[s] = true;
			if
			:: source_journal[s] = REFUSED
			:: FAULT /* so is this */
			fi;
			hang_up(); resume(FAILED); goto again }
#ifdef MUTATE_RESUMED_ON_A_TIMER
		:: atomic { FAULT; hang_up(); resume(FAILED); goto again }
#endif
		:: atomic { source_cut && empty(to_source) -> source_phase = IN_DOUBT }
		:: atomic { FAULT; hang_up(); source_phase = IN_DOUBT }
		fi;

doubt:
		if
		:: atomic { answerer_up && empty(asked) -> FLUSH(answers); asked!s; ask_linked = true };
			if
			:: atomic { answers?said, eval(s); ask_linked = false }
			:: !ask_linked -> goto doubt
			:: atomic { FAULT; ask_linked = false; goto doubt }
			fi
#ifndef COMES_BACK
		/* An operator, who has looked. */
		:: atomic { !destination_up && never_ran(s) -> said = SAYS_NEVER }
		:: atomic { has_run[s] -> said = SAYS_STARTED }
		/* A fence command, which turns the power off. */
		:: atomic { never_ran(s) -> kill_destination(); kill_answerer(); said = SAYS_NEVER }
#endif
		fi;

		/* What is learnt is in the journal before it is acted on. */
		if
		:: atomic { said == SAYS_STARTED -> source_journal[s] = RESOLVED_DESTINATION }
			atomic { said = 0; let_go(); goto over }
#ifdef MUTATE_UNKNOWN_TAKEN_FOR_NEVER
		:: atomic { said == SAYS_NEVER || said == SAYS_UNKNOWN -> source_journal[s] = RESOLVED_SOURCE };
#else
		:: atomic { said == SAYS_NEVER -> source_journal[s] = RESOLVED_SOURCE };
#endif
			atomic { said = 0; resume(FAILED); goto again }
		:: atomic { said == SAYS_PENDING || said == SAYS_UNKNOWN -> said = 0; goto doubt }
		:: atomic { FAULT; said = 0; source_phase = IN_DOUBT; goto doubt }
		fi;

failed:
		atomic { tell_destination(ABORT); hang_up(); resume(FAILED); goto again };

over:
		false
	} unless { !source_up };

	if
	:: atomic { source_up = true; said = 0; goto start }
	:: STAY_DEAD
	fi
}

active proctype destination()
{
	byte s;

start:
	{
		destination_phase = LISTEN;
listen:
		/* The lock, what the journal says, and RECEIVE. */
		if
#ifdef MUTATE_LOCKED_AFTER_RECEIVE
		:: atomic { to_destination?OFFER, s ->
			if
			:: destination_journal[s] == NOTHING -> destination_journal[s] = RECEIVE
			:: else -> goto refuse
			fi };
			atomic {
			if
			:: lock == NOBODY -> lock = DESTINATION
			:: else -> goto refuse
			fi }
#else
		:: atomic { to_destination?OFFER, s ->
			if
			:: lock == NOBODY -> lock = DESTINATION
			:: else -> goto refuse
			fi };
			atomic {
			if
#ifdef MUTATE_REPLAY_ACCEPTED
			:: destination_journal[s] = RECEIVE
#else
			:: destination_journal[s] == NOTHING -> destination_journal[s] = RECEIVE
			:: destination_journal[s] != NOTHING -> goto refuse
#endif
			:: FAULT; goto refuse
			fi }
#endif
		:: to_destination?FINAL, _ -> goto close
		:: to_destination?COMMIT, _ -> goto close
		:: to_destination?ABORT, _ -> goto close
		:: caller != NOBODY && !linked && empty(to_destination) -> goto close
		:: atomic { caller != NOBODY && CAN_FAIL -> FAULT; goto close }
		fi;
		atomic { destination_phase = STREAM; lanes_open = s; tell_source(ACCEPT) };

		/* Tokens, fence, load. */
		if
		:: atomic { to_destination?FINAL, _ -> destination_phase = HAND_OVER }
		:: to_destination?COMMIT, _ -> goto discard
		:: to_destination?OFFER, _ -> goto discard
		:: to_destination?ABORT, _ -> goto discard
		:: !linked && empty(to_destination) -> goto discard
		:: atomic { FAULT; goto discard } /* a deadline, a cancel, memory is short; also below */
		fi;
		atomic {
#ifndef MUTATE_NOT_FENCED
			lanes_open = 0;
#endif
#ifdef MUTATE_UNLOCKED_AFTER_PREPARED
			lock = NOBODY;
#endif
			tell_source(PREPARED)
		};
		if
#ifdef MUTATE_COMMIT_NOT_COMPARED
		:: atomic { to_destination?COMMIT, _ ->
#else
		:: atomic { to_destination?[COMMIT, _] && !to_destination?[COMMIT, eval(s)] -> goto discard }
		:: atomic { to_destination?COMMIT, eval(s) ->
#endif
			destination_phase = COMMITTED;
			if
#ifdef MUTATE_STARTED_WRITTEN_AFTER_RUN
			:: destination_guests++; has_run[s] = true
#else
			:: destination_journal[s] = STARTED_WRITTEN
#endif
#ifdef MUTATE_RUN_WITHOUT_JOURNAL
			:: FAULT
#else
			:: FAULT; goto discard
			:: FAULT; destination_journal[s] = STARTED_WRITTEN; goto discard /* there, but the sync failed */
#endif
			fi }
		:: to_destination?OFFER, _ -> goto discard
		:: to_destination?FINAL, _ -> goto discard
		:: to_destination?ABORT, _ -> goto discard
#ifndef MUTATE_WAITS_FOR_COMMIT_FOR_EVER
		:: !linked && empty(to_destination) -> goto discard
		:: atomic { FAULT; goto discard }
#endif
		fi;
		if
#ifdef MUTATE_STARTED_WRITTEN_AFTER_RUN
		:: destination_journal[s] = STARTED_WRITTEN
#else
		:: atomic { destination_guests++; has_run[s] = true }
		:: atomic { FAULT; goto discard } /* it cannot be resumed */
#endif
		fi;
		atomic { tell_source(STARTED); goto close };

discard:
		if
		:: destination_journal[s] = DISCARDED
		:: atomic { destination_journal[s] == RECEIVE && CAN_FAIL -> FAULT } /* that, and a free lock, says the same */
		:: atomic { destination_journal[s] == STARTED_WRITTEN && CAN_FAIL -> FAULT; goto owing }
		fi;
refuse:
		tell_source(ABORT);
		goto close;

owing:
		/* Who asks is told to wait for as long as the journal says STARTED. */
#ifdef MUTATE_UNLOCKED_WHILE_OWING
		atomic { destination_phase = FAILED; lock = NOBODY; tell_source(ABORT); linked = false };
#else
		atomic { destination_phase = FAILED; tell_source(ABORT); linked = false };
#endif
		destination_journal[s] = DISCARDED;

close:
		atomic {
			FLUSH(to_destination);
			if
			:: lock == DESTINATION -> lock = NOBODY
			:: else
			fi;
			lanes_open = 0;
			caller = NOBODY;
			linked = false;
			destination_phase = LISTEN;
			s = 0;
			goto listen
		}
	} unless { !destination_up };

	if
	:: atomic { destination_up = true; s = 0; goto start }
	:: STAY_DEAD
	fi
}

/* NEVER is said under the lock, and written first. */
active proctype answerer()
{
	byte s;
	mtype said;

start:
	{
		skip;
listen:
		asked?s;
		if
		:: atomic { destination_journal[s] == NOTHING -> said = SAYS_UNKNOWN }
#ifdef MUTATE_NEVER_WITHOUT_LOCK
		:: atomic { destination_journal[s] == RECEIVE -> said = SAYS_NEVER }
#else
		:: atomic { destination_journal[s] != NOTHING && lock != NOBODY -> said = SAYS_PENDING }
		:: atomic { destination_journal[s] != NOTHING && lock == NOBODY -> lock = ANSWERER };
			if
			:: atomic { destination_journal[s] == STARTED_WRITTEN -> said = SAYS_STARTED }
			:: atomic { destination_journal[s] == DISCARDED -> said = SAYS_NEVER }
			:: atomic { destination_journal[s] == RECEIVE -> destination_journal[s] = DISCARDED; said = SAYS_NEVER }
			:: atomic { FAULT; said = SAYS_PENDING } /* it cannot be written */
			fi
#endif
#ifndef COMES_BACK
		:: said = SAYS_UNKNOWN /* it was given another state directory */
#endif
		fi;
		atomic {
#ifndef MUTATE_LOCK_KEPT
			if
			:: lock == ANSWERER -> lock = NOBODY
			:: else
			fi;
#endif
			if
			:: said == SAYS_NEVER -> said_never[s] = true
			:: said == SAYS_STARTED -> said_started[s] = true
			:: else
			fi;
			if
			:: ask_linked && len(answers) == 0 -> answers!said, s
			:: else
			fi;
			s = 0;
			said = 0;
			goto listen
		}
	} unless { !answerer_up };

	if
	:: atomic { answerer_up = true; s = 0; said = 0; goto start }
	:: STAY_DEAD
	fi
}

active proctype fate()
{
	do
	:: atomic { linked && CAN_FAIL -> FAULT;
		linked = false;
		if
		:: FLUSH(to_destination)
		:: true
		fi;
		if
		:: caller == SOURCE -> FLUSH_TO_SOURCE
		:: true
		fi }
	:: atomic { source_up && CAN_FAIL -> FAULT;
		source_up = false;
		ask_linked = false;
		if
		:: source_guest != GONE -> source_guest = GONE; lost = true
		:: true
		fi;
		if
		:: caller == SOURCE -> FLUSH(to_destination)
		:: true
		fi;
		hang_up() }
	:: atomic { destination_up && CAN_FAIL -> FAULT; kill_destination() }
	:: atomic { answerer_up && CAN_FAIL -> FAULT; kill_answerer() }
#ifdef FAIR
	:: break /* whether more goes wrong is not for fairness to decide */
#endif
	od
}

#ifdef STRANGER_CALLS
/* He has seen what was sent, and sends it again. */
active proctype stranger()
{
	byte s;

	do
	:: atomic { (listening && last_session > 0) || (caller == STRANGER && linked && empty(to_destination)) ->
		caller = STRANGER;
		linked = true;
		s = 1;
		do
		:: s < SESSIONS -> s++
		:: break
		od;
		if
		:: s <= last_session -> to_destination!OFFER, s
		:: sent_final[s] -> to_destination!FINAL, s
		:: sent_commit[s] -> to_destination!COMMIT, s
		:: linked = false
		fi;
		s = 0 }
	od
}
#endif

#ifdef STRANGER_ASKS
active proctype curious()
{
	byte s;

	do
	:: atomic { answerer_up && empty(asked) && last_session > 0 ->
		s = 1;
		do
		:: s < last_session -> s++
		:: break
		od;
		asked!s;
		s = 0 }
	od
}
#endif
