/* SPDX-License-Identifier: Apache-2.0 */
/* vCPU threads: run, answer exits, park; see the header. Knows the test guest's two ports. */
#include "kvm/vmm/vcpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "kvm/dirty_ring.h"
#include "kvm/vmm/guest/layout.h"

#define KICK_SIGNAL	 (SIGRTMIN + 4)
#define PAUSE_TIMEOUT_NS (60 * NS_PER_S) /* hosts may be emulated themselves */

static void on_kick(int signal_number)
{
	(void)signal_number; /* that KVM_RUN returns is all that is wanted */
}

static bool is_paused(void *context)
{
	return atomic_load(&((struct vcpus *)context)->paused);
}

static void set_immediate_exit(struct vcpu *vcpu, uint8_t value)
{
	__atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

/* Take vCPUs that the task has not been begun for, until there are none. Under lock, but for the
 * work. */
static void work(struct vcpus *all)
{
	while (all->next < all->n) {
		unsigned vcpu = all->next++;

		pthread_mutex_unlock(&all->lock);
		all->task(all->task_context, vcpu);
		pthread_mutex_lock(&all->lock);
		if (++all->n_done == all->n)
			pthread_cond_broadcast(&all->parked);
	}
}

/* At the gate, without the lock. Under lock. */
static void wait_at_gate(struct vcpus *all, uint64_t until_ns)
{
	uint32_t ticket = gate_ticket(&all->gate);

	pthread_mutex_unlock(&all->lock);
	gate_wait(&all->gate, ticket, until_ns);
	pthread_mutex_lock(&all->lock);
}

/* Stay here while the machine is paused, or for ever when dead. False: the thread shall end. */
static bool park(struct vcpu *vcpu)
{
	struct vcpus *all = vcpu->all;
	bool quit;

	pthread_mutex_lock(&all->lock);
	vcpu->parked = true;
	pthread_cond_broadcast(&all->parked);
	while ((all->paused || vcpu->dead) && !all->quit) {
		if (all->next < all->n)
			work(all);
		else
			wait_at_gate(all, GATE_NEVER);
	}
	vcpu->parked = false;
	vcpu->pace.last_ns = 0;
	quit = all->quit;
	if (!quit)
		set_immediate_exit(vcpu, 0);
	pthread_mutex_unlock(&all->lock);
	return !quit;
}

/* Until a time, or a pause. */
static void sleep_until(struct vcpus *all, uint64_t until_ns)
{
	pthread_mutex_lock(&all->lock);
	while (!all->paused && !all->quit && clock_now_ns() < until_ns)
		wait_at_gate(all, until_ns);
	pthread_mutex_unlock(&all->lock);
}

static void die(struct vcpu *vcpu, const char *words, unsigned long long number)
{
	pthread_mutex_lock(&vcpu->all->lock);
	vcpu->dead = true;
	snprintf(vcpu->last_words, sizeof(vcpu->last_words), "vCPU %u stopped: %s (%llu)",
		 vcpu->index, words, number);
	pthread_mutex_unlock(&vcpu->all->lock);
}

static void answer_batch(struct vcpu *vcpu, void *data)
{
	uint64_t due_ns = vcpu_pace_due_ns(&vcpu->pace);
	uint32_t batch;

	if (due_ns > clock_now_ns())
		sleep_until(vcpu->all, due_ns);
	batch = vcpu_pace_batch(&vcpu->pace, clock_now_ns());
	memcpy(data, &batch, sizeof(batch));
}

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	void *data = (char *)run + run->io.data_offset;

	if (run->io.size != sizeof(uint32_t) || run->io.count != 1)
		die(vcpu, "I/O of a size that the test guest does not use, port", run->io.port);
	else if (run->io.port == GUEST_PORT_BATCH && run->io.direction == KVM_EXIT_IO_IN)
		answer_batch(vcpu, data);
	else if (run->io.port == GUEST_PORT_FAILURE && run->io.direction == KVM_EXIT_IO_OUT)
		atomic_fetch_add(&vcpu->all->failures_heard, 1);
	else
		die(vcpu, "I/O at a port that the test guest does not use", run->io.port);
}

static void handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vcpu);
		break;
	case KVM_EXIT_DIRTY_RING_FULL:
		if (vcpu->all->ring)
			ramlift_dirty_ring_wait(vcpu->all->ring, vcpu->index, is_paused, vcpu->all);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		break;
	case KVM_EXIT_MMIO:
		die(vcpu, "it touched memory that it does not have, at", run->mmio.phys_addr);
		break;
	case KVM_EXIT_SHUTDOWN:
		die(vcpu, "triple fault, exit reason", run->exit_reason);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		die(vcpu, "the CPU refused to enter the guest",
		    run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		die(vcpu, "KVM internal error", run->internal.suberror);
		break;
	default:
		die(vcpu, "unexpected exit", run->exit_reason);
		break;
	}
}

/* After EINTR: whether to park. If the pause was given up meanwhile, its kick must not stay. */
static bool shall_park(struct vcpu *vcpu)
{
	bool paused;

	pthread_mutex_lock(&vcpu->all->lock);
	paused = vcpu->all->paused;
	if (!paused)
		set_immediate_exit(vcpu, 0);
	pthread_mutex_unlock(&vcpu->all->lock);
	return paused;
}

static void *vcpu_thread(void *context)
{
	struct vcpu *vcpu = context;

	while (park(vcpu)) {
		/* Only EINTR says that no exit is half done; so even
		 * after the kick run once more. */
		while (!vcpu->dead) {
			if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
				handle_exit(vcpu);
			else if (errno == EINTR && shall_park(vcpu))
				break;
			else if (errno != EINTR && errno != EAGAIN)
				die(vcpu, "KVM_RUN failed with errno", (unsigned)errno);
		}
	}
	return NULL;
}

void vcpus_init(struct vcpus *vcpus)
{
	cpu_set_t cpus;

	*vcpus = (struct vcpus){ .paused = true, .next = UINT_MAX, .n_cpus = 1 };
	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		vcpus->n_cpus = (unsigned)CPU_COUNT(&cpus);
	pthread_mutex_init(&vcpus->lock, NULL);
	clock_cond_init(&vcpus->parked);
}

int vcpus_add(struct vcpus *vcpus, int fd, const struct vcpu_pace *pace,
	      struct ramlift_error *error)
{
	struct vcpu *vcpu = &vcpus->list[vcpus->n];
	void *run = mmap(NULL, vcpus->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int ret = -errno;

	if (run == MAP_FAILED) {
		close(fd);
		return error_set(error, ret, "cannot map vCPU %u: %s", vcpus->n, strerror(-ret));
	}
	*vcpu = (struct vcpu){
		.all = vcpus,
		.index = vcpus->n,
		.fd = fd,
		.run = run,
		.pace = *pace,
	};
	vcpus->n++;
	return 0;
}

int vcpus_start(struct vcpus *vcpus, struct ramlift_error *error)
{
	struct sigaction kick = { .sa_handler = on_kick };
	sigset_t blocked, before;
	int ret = 0;

	sigemptyset(&kick.sa_mask);
	sigaction(KICK_SIGNAL, &kick, NULL);
	/* A vCPU's thread hears the kick only: the program's signals are for its other threads. */
	sigfillset(&blocked);
	sigdelset(&blocked, KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	for (unsigned i = 0; i < vcpus->n && !ret; i++) {
		ret = -pthread_create(&vcpus->list[i].thread, NULL, vcpu_thread, &vcpus->list[i]);
		vcpus->list[i].has_thread = !ret;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret ? error_set(error, ret, "cannot start the threads of %u vCPUs: %s", vcpus->n,
			       strerror(-ret))
		   : 0;
}

/* Everything out of KVM_RUN, in parallel. Under lock. */
static void kick_all(struct vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->n; i++) {
		if (!vcpus->list[i].parked)
			set_immediate_exit(&vcpus->list[i], 1);
	}
	for (unsigned i = 0; i < vcpus->n; i++) {
		if (vcpus->list[i].has_thread && !vcpus->list[i].parked)
			pthread_kill(vcpus->list[i].thread, KICK_SIGNAL);
	}
}

/* paused or quit has changed, under lock until here. */
static void open_gate(struct vcpus *vcpus)
{
	gate_turn(&vcpus->gate);
	pthread_mutex_unlock(&vcpus->lock);
	gate_wake_all(&vcpus->gate);
}

static unsigned count_running(const struct vcpus *vcpus)
{
	unsigned running = 0;

	for (unsigned i = 0; i < vcpus->n; i++)
		running += vcpus->list[i].has_thread && !vcpus->list[i].parked;
	return running;
}

int vcpus_pause(struct vcpus *vcpus, struct ramlift_error *error)
{
	uint64_t until_ns = clock_now_ns() + PAUSE_TIMEOUT_NS;
	unsigned running;
	int ret = 0;

	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->paused, true);
	kick_all(vcpus);
	open_gate(vcpus);
	if (vcpus->ring)
		ramlift_dirty_ring_wake(vcpus->ring);

	pthread_mutex_lock(&vcpus->lock);
	while ((running = count_running(vcpus)) && !ret)
		ret = clock_wait(&vcpus->parked, &vcpus->lock, until_ns);
	pthread_mutex_unlock(&vcpus->lock);
	if (!running)
		return 0;
	vcpus_resume(vcpus);
	return error_set(error, -ETIMEDOUT, "%u of %u vCPUs did not stop within %llu s", running,
			 vcpus->n, (unsigned long long)(PAUSE_TIMEOUT_NS / NS_PER_S));
}

void vcpus_resume(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	atomic_store(&vcpus->paused, false);
	open_gate(vcpus);
}

void vcpus_each(struct vcpus *vcpus, void (*task)(void *context, unsigned vcpu), void *context)
{
	unsigned n_threads = vcpus->n < vcpus->n_cpus ? vcpus->n : vcpus->n_cpus;

	pthread_mutex_lock(&vcpus->lock);
	vcpus->task = task;
	vcpus->task_context = context;
	vcpus->next = 0;
	vcpus->n_done = 0;
	gate_turn(&vcpus->gate);
	pthread_mutex_unlock(&vcpus->lock);
	/* No more than can run: to wake a thread takes as long as some of the work. */
	gate_wake_some(&vcpus->gate, n_threads - 1);

	pthread_mutex_lock(&vcpus->lock);
	work(vcpus);
	while (vcpus->n_done < vcpus->n)
		pthread_cond_wait(&vcpus->parked, &vcpus->lock);
	pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_fini(struct vcpus *vcpus)
{
	/* A vCPU that does not stop would use what is freed next: there is nothing better than to
	 * wait. */
	while (vcpus_pause(vcpus, NULL))
		;
	pthread_mutex_lock(&vcpus->lock);
	vcpus->quit = true;
	open_gate(vcpus);
	for (unsigned i = 0; i < vcpus->n; i++) {
		if (vcpus->list[i].has_thread)
			pthread_join(vcpus->list[i].thread, NULL);
		munmap(vcpus->list[i].run, vcpus->run_bytes);
		close(vcpus->list[i].fd);
	}
	pthread_cond_destroy(&vcpus->parked);
	pthread_mutex_destroy(&vcpus->lock);
}
