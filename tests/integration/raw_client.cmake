# SPDX-License-Identifier: Apache-2.0
# A peer that says what no source would say.
add_executable(raw_client ${CMAKE_CURRENT_LIST_DIR}/raw_client.c)
target_link_libraries(raw_client PRIVATE ramlift_flags ramlift_static)
