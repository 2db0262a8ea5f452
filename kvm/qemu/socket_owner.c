/* SPDX-License-Identifier: Apache-2.0 */
/* From a TCP socket's addresses to its inode by /proc/net/tcp and tcp6, to its process by
 * /proc/PID/fd. */
#include "kvm/qemu/socket_owner.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

#define STATE_LISTEN 0x0au

/* IPv4 as ::ffff:a.b.c.d, which is how tcp6 lists connections of either family. */
struct endpoint {
	uint32_t words[4]; /* in network byte order, as they are in memory */
	unsigned port;
};

static int from_sockaddr(const struct sockaddr *address, struct endpoint *endpoint)
{
	const struct sockaddr_in *v4 = (const void *)address;
	const struct sockaddr_in6 *v6 = (const void *)address;

	if (address->sa_family == AF_INET) {
		*endpoint = (struct endpoint){ { 0, 0, htonl(0xffff), v4->sin_addr.s_addr },
					       ntohs(v4->sin_port) };
	} else if (address->sa_family == AF_INET6) {
		memcpy(endpoint->words, &v6->sin6_addr, sizeof(endpoint->words));
		endpoint->port = ntohs(v6->sin6_port);
	} else {
		return -EAFNOSUPPORT;
	}
	return 0;
}

/* "0100007F:1F90", or four such words: the kernel prints each word as it is in memory. */
static bool from_text(const char *text, struct endpoint *endpoint)
{
	uint32_t *w = endpoint->words;

	if (sscanf(text, "%8" SCNx32 "%8" SCNx32 "%8" SCNx32 "%8" SCNx32 ":%4x", &w[0], &w[1],
		   &w[2], &w[3], &endpoint->port) == 5)
		return true;
	w[0] = w[1] = 0;
	w[2] = htonl(0xffff);
	return sscanf(text, "%8" SCNx32 ":%4x", &w[3], &endpoint->port) == 2;
}

static bool same(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && !memcmp(a->words, b->words, sizeof(a->words));
}

static bool is_any(const struct endpoint *endpoint)
{
	const uint32_t *w = endpoint->words;

	return !w[0] && !w[1] && !w[3] && (!w[2] || w[2] == htonl(0xffff));
}

static bool matches(const char *line, const struct endpoint *local, const struct endpoint *peer,
		    uint64_t *inode)
{
	struct endpoint here = { .port = 0 }, there = { .port = 0 };
	char local_text[48], peer_text[48];
	unsigned state;

	if (sscanf(line, " %*u: %47s %47s %x %*s %*s %*s %*u %*u %" SCNu64, local_text, peer_text,
		   &state, inode) != 4 ||
	    !from_text(local_text, &here) || !from_text(peer_text, &there))
		return false;
	if (!*inode) /* nobody's any more: TIME_WAIT */
		return false;
	if (peer)
		return same(&here, local) && same(&there, peer);
	return state == STATE_LISTEN && here.port == local->port &&
	       (is_any(&here) || same(&here, local));
}

static bool find_inode(const char *table, const struct endpoint *local, const struct endpoint *peer,
		       uint64_t *inode)
{
	FILE *file = fopen(table, "re");
	bool found = false;
	char line[512];

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = matches(line, local, peer, inode);
	fclose(file);
	return found;
}

/* Does the process have the socket? -EACCES: it may not be looked at. */
static int holds(const char *pid, const char *socket)
{
	char name[320], target[64];
	const struct dirent *entry;
	bool found = false;
	DIR *folder;

	snprintf(name, sizeof(name), "/proc/%s/fd", pid);
	folder = opendir(name);
	if (!folder)
		return errno == EACCES || errno == EPERM ? -EACCES : 0;
	while (!found && (entry = readdir(folder))) {
		ssize_t n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		found = !strcmp(target, socket);
	}
	closedir(folder);
	return found;
}

static bool is_qemu(const char *pid)
{
	char name[320], command[32] = "";
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%s/comm", pid);
	file = fopen(name, "re");
	if (!file)
		return false;
	if (!fgets(command, sizeof(command), file))
		command[0] = '\0';
	fclose(file);
	return !strncmp(command, "qemu", 4);
}

/* libvirt opens a socket and passes it on: for a moment both have it. */
static int find_holder(uint64_t inode, pid_t *pid)
{
	const struct dirent *entry;
	pid_t best = 0;
	bool best_is_qemu = false, hidden = false;
	char socket[64];
	DIR *folder = opendir("/proc");

	if (!folder)
		return -errno;
	snprintf(socket, sizeof(socket), "socket:[%" PRIu64 "]", inode);
	while ((entry = readdir(folder))) {
		pid_t number = atoi(entry->d_name);
		int held = number > 0 ? holds(entry->d_name, socket) : 0;
		bool qemu;

		hidden |= held < 0;
		if (held <= 0)
			continue;
		qemu = is_qemu(entry->d_name);
		if (qemu < best_is_qemu || (qemu == best_is_qemu && number < best))
			continue;
		best = number;
		best_is_qemu = qemu;
	}
	closedir(folder);
	if (!best)
		return hidden ? -EACCES : -ENOENT;
	*pid = best;
	return 0;
}

/* The number that a socket has in /proc. */
static int find_socket(const struct sockaddr *local, const struct sockaddr *peer, uint64_t *inode,
		       struct ramlift_error *error)
{
	struct endpoint here, there;
	int ret;

	ret = from_sockaddr(local, &here);
	if (!ret && peer)
		ret = from_sockaddr(peer, &there);
	if (ret)
		return error_set(error, ret, "only TCP sockets have an owner that can be found");
	if (find_inode("/proc/net/tcp", &here, peer ? &there : NULL, inode) ||
	    find_inode("/proc/net/tcp6", &here, peer ? &there : NULL, inode))
		return 0;
	return error_set(error, -ENOENT,
			 "no process of this host has a TCP socket at port %u%s: QEMU must "
			 "run on this host, in the same network namespace",
			 here.port, peer ? " with that peer" : " that listens");
}

int socket_owner(const struct sockaddr *local, const struct sockaddr *peer, pid_t *pid,
		 struct ramlift_error *error)
{
	uint64_t inode;
	int ret;

	ret = find_socket(local, peer, &inode, error);
	if (ret)
		return ret;
	ret = find_holder(inode, pid);
	if (ret == -EACCES)
		return error_set(error, ret,
				 "the process with QEMU's TCP connection may not be looked at: run "
				 "ramlift as root, or as the user that QEMU runs as");
	return ret ? error_set(error, ret, "no process of this host holds that connection any more")
		   : 0;
}

bool socket_is_of(pid_t pid, const struct sockaddr *local, const struct sockaddr *peer)
{
	char process[16], socket[64];
	uint64_t inode;

	if (find_socket(local, peer, &inode, NULL))
		return false;
	snprintf(process, sizeof(process), "%d", (int)pid);
	snprintf(socket, sizeof(socket), "socket:[%" PRIu64 "]", inode);
	return holds(process, socket) > 0;
}
