/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty rings: harvest, that is, collect the entries, have KVM protect their pages again, and
 * only then publish them.
 *
 *      vCPU writes      collect()          reset()           publish()         engine
 *      page: entry  ->  entry in stage ->  page protected -> page marked   ->  reads the page
 *      in its ring                         again
 *
 * A write before reset() is in what the engine reads; a write after it makes a new entry. Were a
 * page published before its reset, the engine could read it, the guest could write it once more
 * without a new entry, and the reset would then forget it: a lost write.
 *
 * Under a limit, entries beyond it make a debt that time pays off. While there is debt, a ring is
 * left to fill up; once it is full and its vCPU stopped, it is emptied at once, but the vCPU waits
 * until the debt is paid. So little is left in the rings of a guest that is slowed down, however
 * fast it would write, and what was taken is sent while it waits.
 *
 * Threads: the session's thread and the harvest thread both harvest, under harvest_lock. vCPU
 * threads wait for room under wait_lock, which is never held across a harvest. Lock order:
 * harvest_lock, then wait_lock. Knows nothing of how vCPUs are run or paused.
 */
#include "kvm/dirty_ring.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/dirty_ring_private.h"

#define HARVEST_PERIOD_NS (5 * NS_PER_MS)
#define COLLECT_TURN	  64u /* entries taken from one ring before the next has its turn */
#define LIMIT_BURST_NS	  (100 * NS_PER_MS)
#define LIMIT_BURST_MIN	  16u
#define LIMIT_DEBT_NS	  (4 * NS_PER_S) /* no vCPU waits longer: guests have watchdogs */

static bool collect_one(struct ramlift_dirty_ring *ring, struct vcpu_ring *from)
{
	struct kvm_dirty_gfn *gfn = &from->gfns[from->next & (ring->entries - 1)];
	unsigned region;
	uint64_t page;

	/* Acquire: slot and offset are read only after the flag that says that they are there. */
	if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
		return false;
	region = dirty_slots_find(&ring->slots, gfn->slot);
	page = gfn->offset;
	/* Release: KVM may use the entry again only after it has been read. */
	__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	from->next++;
	from->taken++;

	if (region < ring->slots.n && page < dirty_slots_pages(&ring->slots, region))
		ring->stage[ring->n_staged++] = (struct staged_page){ region, page };
	else
		ring->strays++;
	return true;
}

/* Take turns until no ring has entries left that may be taken. Each gives at most its size, so that
 * a harvest ends although vCPUs go on writing; this also bounds the stage. */
static uint64_t collect(struct ramlift_dirty_ring *ring, bool in_debt)
{
	size_t room = (size_t)ring->entries * ring->n_rings - ring->n_staged;
	uint64_t left = room;
	bool more = true;

	for (unsigned i = 0; i < ring->n_rings; i++) {
		ring->rings[i].taken = 0;
		ring->rings[i].empty = false;
	}
	while (more && left) {
		more = false;
		for (unsigned i = 0; i < ring->n_rings && left; i++) {
			struct vcpu_ring *from = &ring->rings[i];
			unsigned turn = COLLECT_TURN;

			if (in_debt && !atomic_load(&from->stopped))
				continue;
			while (turn && left && from->taken < ring->entries && !from->empty) {
				from->empty = !collect_one(ring, from);
				left -= !from->empty;
				turn--;
			}
			more |= !turn;
		}
	}
	return room - left;
}

/* Protect the collected pages again and free their entries. EINTR: KVM 6.16 and later stop for a
 * signal, and go on where they were. */
static int reset(struct ramlift_dirty_ring *ring)
{
	int ret;

	do
		ret = ioctl(ring->slots.vm_fd, KVM_RESET_DIRTY_RINGS, 0);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

/* Mark what was collected, neighbours in one go. */
static void publish(struct ramlift_dirty_ring *ring)
{
	size_t i = 0;

	while (i < ring->n_staged) {
		const struct staged_page *first = &ring->stage[i];
		uint64_t n = 1;

		while (i + n < ring->n_staged && ring->stage[i + n].region == first->region &&
		       ring->stage[i + n].page == first->page + n)
			n++;
		if (ring->sink)
			ramlift_dirty_mark(ring->sink, first->region, first->page, n);
		i += n;
	}
	ring->n_staged = 0;
}

/* Time has earned entries, or paid for some. */
static void top_up(struct ramlift_dirty_ring *ring)
{
	uint64_t now_ns = clock_now_ns(), elapsed_ns = now_ns - ring->allowance_ns;
	int64_t burst = (int64_t)ring->pages_per_second * (LIMIT_BURST_NS / NS_PER_MS) / 1000;
	int64_t earned;

	if (elapsed_ns > LIMIT_DEBT_NS)
		elapsed_ns = LIMIT_DEBT_NS;
	earned = (int64_t)(ring->pages_per_second * (elapsed_ns / NS_PER_US) /
			   (NS_PER_S / NS_PER_US));
	if (earned) { /* what is over counts the next time */
		ring->allowance += earned;
		ring->allowance_ns += (uint64_t)earned * (NS_PER_S / NS_PER_US) /
				      ring->pages_per_second * NS_PER_US;
	}
	if (burst < LIMIT_BURST_MIN)
		burst = LIMIT_BURST_MIN;
	if (ring->allowance > burst)
		ring->allowance = burst;
}

static void pay(struct ramlift_dirty_ring *ring, uint64_t entries)
{
	int64_t most_debt = (int64_t)ring->pages_per_second * (int64_t)(LIMIT_DEBT_NS / NS_PER_S);

	ring->allowance -= (int64_t)entries;
	if (ring->allowance < -most_debt)
		ring->allowance = -most_debt;
}

static bool in_debt(const struct ramlift_dirty_ring *ring)
{
	return ring->pages_per_second && ring->allowance <= 0;
}

/* Let vCPUs go whose ring has room again. */
static void release_waiting(struct ramlift_dirty_ring *ring)
{
	uint64_t now_ns = clock_now_ns();
	bool all = !in_debt(ring);

	pthread_mutex_lock(&ring->wait_lock);
	for (unsigned i = 0; i < ring->n_rings; i++) {
		struct vcpu_ring *waits = &ring->rings[i];

		/* Others' debt may be paid off late: nobody waits for that for ever. */
		if (all || now_ns - waits->stopped_ns >= LIMIT_DEBT_NS)
			waits->released += waits->taken || waits->empty;
	}
	pthread_cond_broadcast(&ring->room);
	pthread_mutex_unlock(&ring->wait_lock);
}

/* One harvest, under harvest_lock. The order of reset and publish is rule 1. After a failure the
 * stage keeps what was collected; the next harvest that succeeds publishes it. */
static int harvest_locked(struct ramlift_dirty_ring *ring)
{
	uint64_t taken;

	if (ring->pages_per_second)
		top_up(ring);
	taken = collect(ring, in_debt(ring));
	if (ring->pages_per_second)
		pay(ring, taken);
	if (taken || ring->n_staged) {
		int ret = reset(ring);

		if (ret)
			return ret;
		publish(ring);
	}
	release_waiting(ring);
	return 0;
}

static int ring_harvest(void *source, struct ramlift_error *error)
{
	struct ramlift_dirty_ring *ring = source;
	int ret;

	pthread_mutex_lock(&ring->harvest_lock);
	ret = ring->harvest_ret;
	if (!ret)
		ret = harvest_locked(ring);
	pthread_mutex_unlock(&ring->harvest_lock);
	if (ret)
		return error_set(error, ret,
				 "cannot harvest the dirty rings: KVM_RESET_DIRTY_RINGS: %s",
				 strerror(-ret));
	return 0;
}

/* Until the next period, or a full ring, or quit; false for quit. */
static bool harvest_thread_sleep(struct ramlift_dirty_ring *ring)
{
	uint64_t until_ns = clock_now_ns() + HARVEST_PERIOD_NS;
	bool quit;
	int ret = 0;

	pthread_mutex_lock(&ring->wait_lock);
	while (!ring->quit && !(ring->full && !ring->limited) && !ret)
		ret = clock_wait(&ring->urgent, &ring->wait_lock, until_ns);
	ring->full = false;
	quit = ring->quit;
	pthread_mutex_unlock(&ring->wait_lock);
	return !quit;
}

static void *harvest_thread(void *source)
{
	struct ramlift_dirty_ring *ring = source;

	while (harvest_thread_sleep(ring)) {
		int ret;

		pthread_mutex_lock(&ring->harvest_lock);
		ret = harvest_locked(ring);
		if (ret)
			ring->harvest_ret = ret;
		pthread_mutex_unlock(&ring->harvest_lock);
	}
	return NULL;
}

static int start_thread(struct ramlift_dirty_ring *ring)
{
	sigset_t all, before;
	int ret;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&ring->thread, NULL, harvest_thread, ring);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -ret;
}

static void set_started(struct ramlift_dirty_ring *ring, bool started)
{
	pthread_mutex_lock(&ring->wait_lock);
	ring->started = started;
	ring->full = false;
	ring->quit = false;
	ring->limited = false;
	/* Those who wait for this session's next harvest: there is none, and the drain after it may
	 * fail. */
	pthread_cond_broadcast(&ring->room);
	pthread_mutex_unlock(&ring->wait_lock);
}

static void set_sink(struct ramlift_dirty_ring *ring, struct ramlift_dirty_sink *sink)
{
	pthread_mutex_lock(&ring->harvest_lock);
	ring->sink = sink;
	ring->pages_per_second = 0;
	ring->harvest_ret = 0;
	pthread_mutex_unlock(&ring->harvest_lock);
}

/* Between sessions: throw away what is in the rings, so that vCPUs have room. */
static void drain(struct ramlift_dirty_ring *ring)
{
	pthread_mutex_lock(&ring->harvest_lock);
	if (!ring->sink)
		harvest_locked(ring);
	pthread_mutex_unlock(&ring->harvest_lock);
}

static int ring_start(void *source, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct ramlift_dirty_ring *ring = source;
	int ret;

	drain(ring);
	set_sink(ring, sink);
	set_started(ring, true);

	ret = start_thread(ring);
	if (ret) {
		error_set(error, ret, "cannot start the harvest thread: %s", strerror(-ret));
		goto undo_started;
	}
	ret = dirty_slots_track(&ring->slots, error);
	if (ret)
		goto undo_thread;
	return 0;

undo_thread:
	pthread_mutex_lock(&ring->wait_lock);
	ring->quit = true;
	pthread_cond_signal(&ring->urgent);
	pthread_mutex_unlock(&ring->wait_lock);
	pthread_join(ring->thread, NULL);
undo_started:
	set_sink(ring, NULL);
	set_started(ring, false);
	drain(ring);
	return ret;
}

static int ring_limit(void *source, uint64_t pages_per_second, struct ramlift_error *error)
{
	struct ramlift_dirty_ring *ring = source;

	(void)error;
	pthread_mutex_lock(&ring->harvest_lock);
	if (!ring->pages_per_second) {
		ring->allowance = 0;
		ring->allowance_ns = clock_now_ns();
	}
	/* Far above what any guest can write, and safe to multiply with. */
	ring->pages_per_second = pages_per_second < UINT32_MAX ? pages_per_second : UINT32_MAX;
	pay(ring, 0); /* at a lower rate the same debt would take longer */
	pthread_mutex_unlock(&ring->harvest_lock);

	pthread_mutex_lock(&ring->wait_lock);
	ring->limited = pages_per_second != 0;
	pthread_cond_signal(&ring->urgent);
	pthread_mutex_unlock(&ring->wait_lock);
	return 0;
}

static bool is_dirty(const struct ramlift_dirty_ring *ring, const struct vcpu_ring *from,
		     uint32_t ahead)
{
	const struct kvm_dirty_gfn *gfn = &from->gfns[(from->next + ahead) & (ring->entries - 1)];

	return __atomic_load_n(&gfn->flags, __ATOMIC_RELAXED) == KVM_DIRTY_GFN_F_DIRTY;
}

/*
 * Entries of one ring that have not been collected. KVM fills them in order, so those that are
 * dirty come first, and where they end is found by halving.
 */
static uint32_t waiting(const struct ramlift_dirty_ring *ring, const struct vcpu_ring *from)
{
	uint32_t least = 0, most = ring->entries;

	while (least < most) {
		uint32_t middle = least + (most - least) / 2;

		if (is_dirty(ring, from, middle))
			least = middle + 1;
		else
			most = middle;
	}
	return least;
}

/* What the CPU still holds back (Intel's PML: 512 pages a vCPU until its next exit) is not seen. */
static uint64_t ring_backlog(void *source)
{
	struct ramlift_dirty_ring *ring = source;
	uint64_t pages;

	pthread_mutex_lock(&ring->harvest_lock);
	pages = ring->n_staged;
	for (unsigned i = 0; i < ring->n_rings; i++)
		pages += waiting(ring, &ring->rings[i]);
	pthread_mutex_unlock(&ring->harvest_lock);
	return pages;
}

static void ring_stop(void *source)
{
	struct ramlift_dirty_ring *ring = source;

	pthread_mutex_lock(&ring->wait_lock);
	ring->quit = true;
	pthread_cond_signal(&ring->urgent);
	pthread_mutex_unlock(&ring->wait_lock);
	pthread_join(ring->thread, NULL);

	dirty_slots_untrack(&ring->slots);
	set_sink(ring, NULL);
	set_started(ring, false);
	drain(ring);
}

void ramlift_dirty_ring_wait(struct ramlift_dirty_ring *ring, unsigned vcpu,
			     bool (*give_up)(void *context), void *context)
{
	struct vcpu_ring *mine = &ring->rings[vcpu];
	uint64_t released;
	bool started;

	pthread_mutex_lock(&ring->wait_lock);
	started = ring->started;
	released = mine->released;
	ring->full = true;
	mine->stopped_ns = clock_now_ns();
	atomic_store(&mine->stopped, true);
	pthread_cond_signal(&ring->urgent);
	while (ring->started && mine->released == released && !give_up(context))
		pthread_cond_wait(&ring->room, &ring->wait_lock);
	atomic_store(&mine->stopped, false);
	pthread_mutex_unlock(&ring->wait_lock);

	/* Entries left over from a session that has ended: nobody else would make room. */
	if (!started)
		drain(ring);
}

void ramlift_dirty_ring_wake(struct ramlift_dirty_ring *ring)
{
	pthread_mutex_lock(&ring->wait_lock);
	pthread_cond_broadcast(&ring->room);
	pthread_mutex_unlock(&ring->wait_lock);
}

uint64_t ramlift_dirty_ring_strays(struct ramlift_dirty_ring *ring)
{
	return ring->strays;
}

const struct ramlift_dirty_source_ops *ramlift_dirty_ring_ops(void)
{
	static const struct ramlift_dirty_source_ops ops = {
		.start = ring_start,
		.harvest = ring_harvest,
		.limit = ring_limit,
		.backlog = ring_backlog,
		.stop = ring_stop,
	};

	return &ops;
}
