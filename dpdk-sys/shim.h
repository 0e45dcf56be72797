/* What bindgen cannot bind: thread-local macros and stdio callbacks. */
#ifndef UVS_DPDK_SHIM_H
#define UVS_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

/* Receives one piece of EAL log text, not terminated by NUL; `level` is RTE_LOG_*. */
typedef void (*uvs_log_sink)(int level, const char *text, size_t length);

/* rte_errno of the calling thread, positive. */
int uvs_rte_errno(void);

/* Sends all EAL log text to `sink` instead of stdout and syslog. Returns 0, or -1 when out of memory. */
int uvs_log_redirect(uvs_log_sink sink);

#endif
