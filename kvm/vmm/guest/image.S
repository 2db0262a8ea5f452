/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's program as bytes in the VMM. */
	.section .rodata
	.balign 16
	.globl guest_image
	.globl guest_image_end
guest_image:
	.incbin GUEST_IMAGE
guest_image_end:
	.section .note.GNU-stack, "", @progbits
