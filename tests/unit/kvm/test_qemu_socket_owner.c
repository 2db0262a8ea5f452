/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds the other end of a connection over the loopback. */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ramlift.h"
#include "kvm/qemu/socket_owner.h"

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage room;
};

static int listen_on(int family, const char *text, union address *address, socklen_t *bytes)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*address = (union address){ .any.sa_family = (sa_family_t)family };
	*bytes = family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
	inet_pton(family, text,
		  family == AF_INET ? (void *)&address->v4.sin_addr : &address->v6.sin6_addr);
	if (fd >= 0 && (bind(fd, &address->any, *bytes) || listen(fd, 1))) {
		close(fd);
		fd = -1;
	}
	if (fd >= 0)
		assert_int_equal(getsockname(fd, &address->any, bytes), 0);
	return fd;
}

/* A child connects; seen from the accepted socket it is the owner of the other end. */
static void expect_child(int listener, const union address *address, socklen_t bytes)
{
	union address peer, local;
	socklen_t room = sizeof(peer);
	int hold[2], accepted;
	pid_t child, owner = 0;
	char byte;

	assert_int_equal(pipe(hold), 0);
	child = fork();
	if (!child) {
		int fd = socket(address->any.sa_family, SOCK_STREAM, 0);

		close(listener);
		close(hold[1]);
		if (connect(fd, &address->any, bytes))
			_exit(1);
		_exit(read(hold[0], &byte, 1) < 0);
	}
	close(hold[0]);
	accepted = accept(listener, NULL, NULL);
	assert_true(accepted >= 0);
	assert_int_equal(getpeername(accepted, &peer.any, &room), 0);
	room = sizeof(local);
	assert_int_equal(getsockname(accepted, &local.any, &room), 0);
	assert_int_equal(socket_owner(&peer.any, &local.any, &owner, NULL), 0);
	assert_int_equal(owner, child);
	assert_int_equal(socket_owner(&local.any, &peer.any, &owner, NULL), 0);
	assert_int_equal(owner, getpid());
	close(accepted);
	close(hold[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_ipv4(void **unused)
{
	union address address;
	socklen_t bytes;
	pid_t owner = 0;
	int fd = listen_on(AF_INET, "127.0.0.1", &address, &bytes);

	(void)unused;
	assert_true(fd >= 0);
	assert_int_equal(socket_owner(&address.any, NULL, &owner, NULL), 0);
	assert_int_equal(owner, getpid());
	expect_child(fd, &address, bytes);
	close(fd);
}

/* It listens on all addresses, and connections of IPv4 come in by it. */
static void test_ipv6_and_mapped(void **unused)
{
	union address address, v4 = { .v4 = { .sin_family = AF_INET } };
	socklen_t bytes;
	pid_t owner = 0;
	int fd = listen_on(AF_INET6, "::", &address, &bytes);

	(void)unused;
	if (fd < 0)
		skip(); /* a host without IPv6 */
	v4.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	v4.v4.sin_port = address.v6.sin6_port;
	assert_int_equal(socket_owner(&v4.any, NULL, &owner, NULL), 0);
	assert_int_equal(owner, getpid());
	expect_child(fd, &v4, sizeof(v4.v4));
	address.v6.sin6_addr = in6addr_loopback;
	expect_child(fd, &address, bytes);
	close(fd);
}

static void test_nobody(void **unused)
{
	const struct sockaddr local_socket = { .sa_family = AF_UNIX };
	struct ramlift_error error;
	union address address;
	socklen_t bytes;
	pid_t owner = 77;
	int fd = listen_on(AF_INET, "127.0.0.1", &address, &bytes);

	(void)unused;
	close(fd);
	assert_int_equal(socket_owner(&address.any, NULL, &owner, &error), -ENOENT);
	assert_non_null(strstr(error.text, "on this host"));
	assert_int_equal(socket_owner(&address.any, &address.any, &owner, &error), -ENOENT);
	assert_int_equal(socket_owner(&local_socket, NULL, &owner, NULL), -EAFNOSUPPORT);
	assert_int_equal(owner, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4),
		cmocka_unit_test(test_ipv6_and_mapped),
		cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests_name("qemu_socket_owner", tests, NULL, NULL);
}
