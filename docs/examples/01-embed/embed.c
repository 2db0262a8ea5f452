/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest program that embeds Ramlift: a "guest" of plain shared memory and one thread that
 * keeps writing it moves from one process to another, over TCP.
 *
 *   embed receive 127.0.0.1:7441        waits, then goes on with the guest for a moment and checks
 * every page embed send 127.0.0.1:7441           runs a guest and moves it
 *
 * A VMM does the same with more behind each call: its regions are guest RAM, pausing kicks vCPUs,
 * the state is theirs, and KVM tells what was written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ramlift/ramlift.h>

#define MEMORY_BYTES (32ull << 20)
#define PAGES	     (MEMORY_BYTES / RAMLIFT_PAGE_BYTES)

/* Each page holds how often it was written; `total` is the sum, and
 * travels as the guest's state. */
struct guest {
	struct ramlift_region region;
	uint64_t total;
	pthread_t thread;
	bool has_thread;
	atomic_bool run;
	pthread_mutex_t lock; /* of memory, total and dirty */
	bool dirty[PAGES];
	struct ramlift_dirty_sink *sink;
};

static uint64_t *page(struct guest *guest, uint64_t index)
{
	return (uint64_t *)((char *)guest->region.hva + index * RAMLIFT_PAGE_BYTES);
}

static int map_memory(struct guest *guest)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, MEMORY_BYTES))
		return -errno;
	guest->region = (struct ramlift_region){
		.size_bytes = MEMORY_BYTES,
		.memfd = fd,
		.page_size_bytes = 4096,
		.numa_node = -1, /* wherever it comes from */
		.hva = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
	};
	return guest->region.hva == MAP_FAILED ? -errno : 0;
}

static void *work(void *argument)
{
	struct guest *guest = argument;

	while (atomic_load(&guest->run)) {
		pthread_mutex_lock(&guest->lock);
		for (int i = 0; i < 64; i++) {
			uint64_t index = (uint64_t)random() % (PAGES / 4);

			*page(guest, index) += 1;
			guest->total += 1;
			guest->dirty[index] = true;
		}
		pthread_mutex_unlock(&guest->lock);
		usleep(1000);
	}
	return NULL;
}

/* ---- what Ramlift asks of the guest ---- */

static int guest_create(void *context, const struct ramlift_guest_offer *offer,
			struct ramlift_region *regions, struct ramlift_error *error)
{
	struct guest *guest = context;
	int ret;

	if (offer->n_regions != 1 || regions[0].size_bytes != MEMORY_BYTES) {
		snprintf(error->text, sizeof(error->text),
			 "this program takes guests of 32 MiB only");
		return error->code = -EINVAL;
	}
	ret = map_memory(guest);
	if (ret) {
		snprintf(error->text, sizeof(error->text), "no memory for the guest");
		return error->code = ret;
	}
	regions[0].hva = guest->region.hva;
	regions[0].memfd = guest->region.memfd;
	regions[0].numa_node = guest->region.numa_node;
	return 0;
}

static void guest_discard(void *context)
{
	struct guest *guest = context;

	munmap(guest->region.hva, MEMORY_BYTES);
	close(guest->region.memfd);
}

static int guest_pause(void *context, struct ramlift_error *error)
{
	struct guest *guest = context;

	(void)error;
	atomic_store(&guest->run, false);
	if (guest->has_thread)
		pthread_join(guest->thread, NULL);
	guest->has_thread = false;
	return 0;
}

static int guest_resume(void *context, struct ramlift_error *error)
{
	struct guest *guest = context;
	int ret;

	if (guest->has_thread)
		return 0;
	atomic_store(&guest->run, true);
	ret = pthread_create(&guest->thread, NULL, work, guest);
	if (ret) {
		snprintf(error->text, sizeof(error->text), "no thread for the guest");
		return error->code = -ret;
	}
	guest->has_thread = true;
	return 0;
}

static int guest_save(void *context, void **state, size_t *state_bytes, struct ramlift_error *error)
{
	struct guest *guest = context;

	*state = malloc(sizeof(guest->total));
	if (!*state)
		return error->code = -ENOMEM;
	memcpy(*state, &guest->total, sizeof(guest->total));
	*state_bytes = sizeof(guest->total);
	return 0;
}

static int guest_load(void *context, const void *state, size_t state_bytes,
		      struct ramlift_error *error)
{
	struct guest *guest = context;

	if (state_bytes != sizeof(guest->total))
		return error->code = -EINVAL;
	memcpy(&guest->total, state, state_bytes);
	return 0;
}

static const struct ramlift_guest_ops guest_ops = {
	.create = guest_create,
	.discard = guest_discard,
	.pause = guest_pause,
	.resume = guest_resume,
	.save_state = guest_save,
	.load_state = guest_load,
};

/* ---- which pages it writes ---- */

static int dirty_start(void *context, struct ramlift_dirty_sink *sink, struct ramlift_error *error)
{
	struct guest *guest = context;

	(void)error;
	pthread_mutex_lock(&guest->lock);
	memset(guest->dirty, 0, sizeof(guest->dirty));
	guest->sink = sink;
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

/* Clear a page's flag before it is marked: a write that comes after that sets it again, for the
 * next harvest. */
static int dirty_harvest(void *context, struct ramlift_error *error)
{
	struct guest *guest = context;

	(void)error;
	for (uint64_t i = 0; i < PAGES; i++) {
		bool dirty;

		pthread_mutex_lock(&guest->lock);
		dirty = guest->dirty[i];
		guest->dirty[i] = false;
		pthread_mutex_unlock(&guest->lock);
		if (dirty)
			ramlift_dirty_mark(guest->sink, 0, i, 1);
	}
	return 0;
}

static void dirty_stop(void *context)
{
	(void)context;
}

static const struct ramlift_dirty_source_ops dirty_ops = {
	.start = dirty_start,
	.harvest = dirty_harvest,
	.stop = dirty_stop,
};

/* ---- the two sides ---- */

static int report(const char *what, const struct ramlift_error *error)
{
	fprintf(stderr, "embed: %s: %s\n", what, error->text);
	return 1;
}

/* Where the journal is: it says whose the guest is, whatever dies in between. */
static const char *state_dir(void)
{
	const char *directory = getenv("TMPDIR");

	return directory ? directory : "/tmp";
}

static int send_guest(struct guest *guest, const char *to)
{
	const struct ramlift_transport *tcp = ramlift_transport_tcp();
	struct ramlift_source_config config;
	struct ramlift_source *source;
	struct ramlift_error error = { 0 };
	struct ramlift_stats stats;

	if (map_memory(guest) || guest_resume(guest, &error))
		return 1;
	usleep(200000);

	ramlift_source_config_init(&config);
	config.guest_name = "embedded";
	config.guest_ops = &guest_ops;
	config.guest = guest;
	config.dirty_source_ops = &dirty_ops;
	config.dirty_source = guest;
	config.regions = &guest->region;
	config.n_regions = 1;
	config.to = to;
	config.transports = &tcp;
	config.n_transports = 1;
	config.state_dir = state_dir();
	config.verify = true;
	if (ramlift_source_new(&config, &source, &error))
		return report("cannot set up", &error);
	if (ramlift_source_run(source, &error))
		return report("cannot move", &error);
	ramlift_source_stats(source, &stats);
	ramlift_source_free(source);
	printf("sent %llu KiB, downtime %llu us, digests %s\n",
	       (unsigned long long)stats.bytes_sent >> 10,
	       (unsigned long long)stats.downtime.total_ns / 1000,
	       stats.verified ? "equal" : "not compared");
	return 0;
}

static int receive_guest(struct guest *guest, const char *listen)
{
	const struct ramlift_transport *tcp = ramlift_transport_tcp();
	struct ramlift_destination_config config;
	struct ramlift_destination *destination;
	struct ramlift_error error = { 0 };
	uint64_t sum = 0;

	ramlift_destination_config_init(&config);
	config.guest_ops = &guest_ops;
	config.guest = guest;
	config.listen = listen;
	config.transports = &tcp;
	config.n_transports = 1;
	config.state_dir = state_dir();
	if (ramlift_destination_new(&config, &destination, &error))
		return report("cannot listen", &error);
	if (ramlift_destination_run(destination, &error))
		return report("no guest came", &error);
	ramlift_destination_free(destination);

	usleep(200000); /* it runs here */
	guest_pause(guest, &error);
	for (uint64_t i = 0; i < PAGES; i++)
		sum += *page(guest, i);
	printf("the guest has written %llu times, its pages say %llu\n",
	       (unsigned long long)guest->total, (unsigned long long)sum);
	return sum == guest->total ? 0 : 1;
}

int main(int argc, char **argv)
{
	static struct guest guest = { .lock = PTHREAD_MUTEX_INITIALIZER };

	if (argc == 3 && !strcmp(argv[1], "send"))
		return send_guest(&guest, argv[2]);
	if (argc == 3 && !strcmp(argv[1], "receive"))
		return receive_guest(&guest, argv[2]);
	fprintf(stderr, "usage: embed send|receive HOST:PORT\n");
	return 2;
}
