/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated hosts: descriptors of their processes, their disks, the network between them.
 */
#ifndef TESTS_SIMULATION_HOST_H
#define TESTS_SIMULATION_HOST_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/wire.h"
#include "scheduler.h"

#define STATE_DIR "/state" /* of each host, the only directory that its disk has */

enum { MAX_HOSTS = 3, MAX_FOLDER_ENTRIES = 32 };

/* A file's contents as its processes see them, and as they are on the disk. */
struct inode {
	struct inode *next;
	uint8_t *data, *durable;
	size_t size, durable_size;
	struct file *locked_by; /* alone */
	unsigned n_sharing;	/* or together */
};

struct folder_entry {
	char name[96];
	struct inode *inode;
};

struct folder {
	struct folder_entry entries[MAX_FOLDER_ENTRIES];
	unsigned n;
};

struct host {
	char name[8];
	struct in_addr address;
	bool up;
	bool disk_full;
	struct folder folder, durable_folder;
	struct inode *inodes;
	struct socket *listeners;
};

enum file_type { FILE_EVENT, FILE_SOCKET, FILE_DISK, FILE_FOLDER, FILE_EPOLL };

enum { EPOLL_MAX_FDS = 4 };

struct file {
	enum file_type type;
	bool nonblocking;
	uint64_t count;	       /* of an eventfd */
	struct socket *socket; /* also one that listens */
	struct inode *inode;
	size_t offset;
	bool appends, shares_lock;
	int watched[EPOLL_MAX_FDS]; /* by an epoll descriptor, for input */
	unsigned n_watched;
};

extern struct host hosts[MAX_HOSTS];

void hosts_begin(void);
void hosts_end(void);

/* Power: what was not synced may be lost or torn, the network hears nothing. Its processes die. */
void host_power_off(struct host *host);
void host_power_on(struct host *host);

/* Nothing passes between two hosts before that time; NEVER_NS: no more. Connections survive it. */
void network_partition(const struct host *a, const struct host *b, uint64_t until_ns);
/* Break all connections of two hosts, as a router does that has lost its tables. */
void network_reset(const struct host *a, const struct host *b);
void network_set_pace(uint64_t latency_ns, size_t window_bytes);

/* descriptors.c */
struct file *file_new(enum file_type type, int *fd); /* NULL: EMFILE */
struct file *file_of(int fd);			     /* NULL: none of the simulation's */
void descriptors_close_all(struct process *process);
unsigned descriptors_open(const struct process *process);
void something_happened_to(struct process *process); /* whoever polls looks again */

/* disk.c */
void disk_begin(struct host *host);
void disk_end(struct host *host);
void disk_power_off(struct host *host);
ssize_t disk_read(struct file *file, void *data, size_t n);
ssize_t disk_write(struct file *file, const void *data, size_t n);
void disk_close(struct file *file);
/* What of a file is on the disk for good; NULL: nothing. Its end is a NUL. */
const char *disk_durable_text(const struct host *host, const char *path);
/* What processes see of it. */
const char *disk_text(const struct host *host, const char *path);

/* network.c */
void network_begin(void);
void network_end(void);
void network_power_off(const struct host *host);
short socket_events(const struct socket *socket);
void socket_close(struct socket *socket);
const struct host *socket_host(const struct socket *socket);
const struct host *socket_peer_host(const struct socket *socket);

/* What becomes of a frame that a process sends; filled in with "it arrives". */
struct frame_fate {
	unsigned copies;
	uint64_t delay_ns;	    /* others may overtake it */
	const uint8_t *followed_by; /* another frame that nobody there has sent */
	uint32_t followed_by_bytes;
};

struct frame {
	const struct socket *from;
	unsigned connection;
	struct process *sender;
	enum message_type type;
	const uint8_t *bytes, *payload; /* bytes: with its header */
	uint32_t n_bytes, length_bytes;
};

/* Set by the scenario. */
extern void (*frame_sent)(const struct frame *frame, struct frame_fate *fate);
extern void (*point_passed)(const char *point, struct process *process);

/* A process is at a point where something may befall it. May not return. */
void pass_point(const char *point);

#endif
