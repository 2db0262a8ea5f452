# SPDX-License-Identifier: Apache-2.0
# Two processes over a transport, without a guest. Over RDMA it needs a device; benches and the testbed run it.
add_executable(transport_pair ${CMAKE_CURRENT_LIST_DIR}/transport_pair.c)
target_link_libraries(transport_pair PRIVATE bench_pair)
