/* SPDX-License-Identifier: Apache-2.0 */
/* Which rails carry what, against a model; and a rail's address on its way to the other side. */
#include <arpa/inet.h>
#include <string.h>

#include "core/rails.h"
#include "tests/support/cmocka_all.h"

static void test_the_node_s_own_rails(void **unused)
{
	static const int nodes[] = { 0, 1, -1, 1, 3, 0, 1, 2 };

	(void)unused;
	assert_int_equal(rails_of_node(0, nodes, 8), 1 << 0 | 1 << 5);
	assert_int_equal(rails_of_node(1, nodes, 8), 1 << 1 | 1 << 3 | 1 << 6);
	assert_int_equal(rails_of_node(2, nodes, 8), 1 << 7);
	assert_int_equal(rails_of_node(3, nodes, 8), 1 << 4);
	assert_int_equal(rails_of_node(1, nodes, 3), 1 << 1); /* of those there are */
}

/* A node without a rail, and memory that is nobody's, go over all of them: of a rail whose node is
 * not known nobody can say that it is near. */
static void test_all_where_none_is_near(void **unused)
{
	static const int nodes[] = { 0, -1, 1, -1, 1, 1, 1, 1 };

	(void)unused;
	assert_int_equal(rails_of_node(7, nodes, 8), 255);
	assert_int_equal(rails_of_node(-1, nodes, 8), 255);
	assert_int_equal(rails_of_node(-1, nodes, 2), 3);
	assert_int_equal(rails_of_node(1, nodes, 2), 3);
	assert_int_equal(rails_of_node(5, nodes, 1), 1);
}

/* Whatever the nodes are, every region has a rail. */
static void test_every_node_has_a_rail(void **unused)
{
	(void)unused;
	for (unsigned code = 0; code < 4 * 4 * 4; code++) {
		int nodes[] = { (int)(code % 4) - 1, (int)(code / 4 % 4) - 1,
				(int)(code / 16) - 1 };

		for (unsigned n = 1; n <= 3; n++) {
			for (int node = -1; node < 4; node++) {
				unsigned expected = 0;

				for (unsigned i = 0; i < n; i++)
					expected |= (node >= 0 && nodes[i] == node) << i;
				if (!expected)
					expected = (1u << n) - 1;
				assert_int_equal(rails_of_node(node, nodes, n), expected);
			}
		}
	}
}

static struct sockaddr_storage v4(const char *text, uint16_t port)
{
	struct sockaddr_storage socket = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&socket;

	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
	return socket;
}

static struct sockaddr_storage v6(const char *text, uint16_t port)
{
	struct sockaddr_storage socket = { 0 };
	struct sockaddr_in6 *in = (struct sockaddr_in6 *)&socket;

	in->sin6_family = AF_INET6;
	in->sin6_port = htons(port);
	assert_int_equal(inet_pton(AF_INET6, text, &in->sin6_addr), 1);
	return socket;
}

static void assert_unpacks_to(const struct rail_address *address,
			      const struct sockaddr_storage *control,
			      const struct sockaddr_storage *expected)
{
	struct sockaddr_storage socket;

	memset(&socket, 0xff, sizeof(socket));
	rail_address_unpack(address, control, &socket);
	assert_memory_equal(&socket, expected, sizeof(socket));
}

static void test_named_rails_travel_with_their_address(void **unused)
{
	struct sockaddr_storage control = v4("192.0.2.9", 7);
	struct sockaddr_storage one = v4("10.0.0.2", 4791), two = v6("fd00::1:2", 65535);
	struct rail_address address;

	(void)unused;
	memset(&address, 0xff, sizeof(address));
	rail_address_pack(&one, true, &address);
	assert_int_equal(address.family, RAIL_FAMILY_INET);
	assert_int_equal(address.port, 4791);
	assert_memory_equal(address.bytes, "\x0a\0\0\x02\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_unpacks_to(&address, &control, &one);

	rail_address_pack(&two, true, &address);
	assert_int_equal(address.family, RAIL_FAMILY_INET6);
	assert_int_equal(address.port, 65535);
	assert_memory_equal(address.bytes, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x02", 16);
	assert_unpacks_to(&address, &control, &two);
}

/* Only the port travels: of which address it is, the source knows by its own connection. */
static void test_the_rail_without_a_name(void **unused)
{
	struct sockaddr_storage control4 = v4("192.0.2.9", 7), control6 = v6("fe80::1", 7);
	struct sockaddr_storage expected4 = v4("192.0.2.9", 1234), expected6 = v6("fe80::1", 1234);
	struct sockaddr_storage any = v4("0.0.0.0", 1234), any6 = v6("::", 1234);
	struct rail_address address;

	(void)unused;
	((struct sockaddr_in6 *)&control6)->sin6_scope_id = 3; /* which would be lost */
	((struct sockaddr_in6 *)&expected6)->sin6_scope_id = 3;
	rail_address_pack(&any, false, &address);
	assert_int_equal(address.family, RAIL_FAMILY_CONTROL);
	assert_memory_equal(address.bytes, (char[16]){ 0 }, 16);
	assert_unpacks_to(&address, &control4, &expected4);
	assert_unpacks_to(&address, &control6, &expected6);
	rail_address_pack(&any6, false, &address);
	assert_int_equal(address.family, RAIL_FAMILY_CONTROL);
	assert_unpacks_to(&address, &control4, &expected4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_node_s_own_rails),
		cmocka_unit_test(test_all_where_none_is_near),
		cmocka_unit_test(test_every_node_has_a_rail),
		cmocka_unit_test(test_named_rails_travel_with_their_address),
		cmocka_unit_test(test_the_rail_without_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
