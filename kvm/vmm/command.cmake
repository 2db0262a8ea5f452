# SPDX-License-Identifier: Apache-2.0
# The command: a library of everything but main(), so that tests can link it, and the program.
add_library(ramlift_command STATIC
	audit.c
	audit_file.c
	control_bind.c
	control_client.c
	control_socket.c
	doubt.c
	fence_command.c
	options.c
	options_lists.c
	options_security.c
	outcome.c
	privileges.c
	progress.c
	report_format.c
	report_json.c
	report_table.c
	runtime_dir.c)
target_link_libraries(ramlift_command PUBLIC ramlift_flags ramlift_static PkgConfig::JANSSON)

# Audit records also go to systemd's journal, where its library is.
pkg_check_modules(SYSTEMD IMPORTED_TARGET libsystemd)
if(SYSTEMD_FOUND)
	target_compile_definitions(ramlift_command PRIVATE RAMLIFT_SYSTEMD)
	target_link_libraries(ramlift_command PRIVATE PkgConfig::SYSTEMD)
endif()

add_executable(ramlift
	cmd_cancel.c
	cmd_devices.c
	cmd_migrate.c
	cmd_parse.c
	cmd_qemu.c
	cmd_qemu_migrate.c
	cmd_qemu_proxy.c
	cmd_qemu_receive.c
	cmd_receive.c
	cmd_resolve.c
	cmd_run.c
	cmd_status.c
	cmd_stop.c
	command_group.c
	command_security.c
	main.c
	server.c
	server_doubt.c
	server_incoming.c
	server_migration.c
	server_migration_request.c
	server_request.c
	session_audit.c)
target_link_libraries(ramlift PRIVATE ramlift_flags ramlift_command ramlift_machine ramlift_qemu ramlift_static
	PkgConfig::JANSSON)
install(TARGETS ramlift)
install(FILES ${PROJECT_SOURCE_DIR}/docs/man/ramlift.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

# The unit is for the place where the program is installed.
configure_file(systemd/ramlift-receive@.service.in systemd/ramlift-receive@.service @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/systemd/ramlift-receive@.service DESTINATION lib/systemd/system)
