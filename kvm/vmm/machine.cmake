# SPDX-License-Identifier: Apache-2.0
# ramlift_machine: the reference VMM's machine with its test guest, for the command and the tests.

# The test guest: a freestanding program, linked to a fixed address, as a flat image.
set(guest_dir ${CMAKE_CURRENT_LIST_DIR}/guest)
set(guest_out ${CMAKE_CURRENT_BINARY_DIR}/guest)
file(MAKE_DIRECTORY ${guest_out})
add_custom_command(OUTPUT ${guest_out}/guest.bin
	COMMAND ${CMAKE_C_COMPILER} -std=gnu17 -m64 -O2 -g -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-pic
		-mcmodel=small -mno-red-zone -mgeneral-regs-only -fno-stack-protector -fcf-protection=none
		-fno-asynchronous-unwind-tables -fno-strict-aliasing -c ${guest_dir}/guest.c -o guest.o
	COMMAND ${CMAKE_C_COMPILER} -m64 -nostdlib -static -no-pie -Wl,-T,${guest_dir}/guest.lds -Wl,--build-id=none
		-Wl,-z,noexecstack guest.o -o guest.elf
	COMMAND ${CMAKE_OBJCOPY} -O binary guest.elf guest.bin
	WORKING_DIRECTORY ${guest_out}
	DEPENDS ${guest_dir}/guest.c ${guest_dir}/layout.h ${guest_dir}/guest.lds
	COMMENT "Building the test guest" VERBATIM)

add_library(ramlift_machine STATIC
	${CMAKE_CURRENT_LIST_DIR}/gate.c
	${CMAKE_CURRENT_LIST_DIR}/machine.c
	${CMAKE_CURRENT_LIST_DIR}/machine_boot.c
	${CMAKE_CURRENT_LIST_DIR}/machine_cpuid.c
	${CMAKE_CURRENT_LIST_DIR}/machine_description.c
	${CMAKE_CURRENT_LIST_DIR}/machine_memory.c
	${CMAKE_CURRENT_LIST_DIR}/machine_numa.c
	${CMAKE_CURRENT_LIST_DIR}/machine_ops.c
	${CMAKE_CURRENT_LIST_DIR}/machine_report.c
	${CMAKE_CURRENT_LIST_DIR}/machine_room.c
	${CMAKE_CURRENT_LIST_DIR}/vcpu.c
	${CMAKE_CURRENT_LIST_DIR}/vcpu_pace.c
	${guest_dir}/image.S)
set_source_files_properties(${guest_dir}/image.S PROPERTIES
	COMPILE_DEFINITIONS "GUEST_IMAGE=\"${guest_out}/guest.bin\"" OBJECT_DEPENDS ${guest_out}/guest.bin)
target_link_libraries(ramlift_machine PUBLIC ramlift_flags ramlift_static PkgConfig::NUMA Threads::Threads)
