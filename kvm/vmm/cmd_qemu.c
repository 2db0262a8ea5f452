/* SPDX-License-Identifier: Apache-2.0 */
/* `ramlift qemu`: the table of its commands. */
#include "kvm/vmm/command.h"

static const struct command commands[] = {
	{ "migrate", cmd_qemu_migrate, "move the guest of a QEMU on this host" },
	{ "receive", cmd_qemu_receive, "take a guest into a QEMU that waits on this host" },
	{ "proxy", cmd_qemu_proxy, "carry what somebody else (libvirt) lets a QEMU send" },
};

static const struct command_group qemu = {
	.name = "ramlift qemu",
	.about =
		"Move guests of an unmodified QEMU over Ramlift's lanes. Guest memory must be a\n"
		"shared backend on both sides, the destination QEMU started with -incoming defer:\n"
		"see docs/qemu.md.",
	.commands = commands,
	.n_commands = sizeof(commands) / sizeof(commands[0]),
};

int cmd_qemu(int argc, char **argv)
{
	return command_group_run(&qemu, argc, argv);
}
