#include <stdio.h>
#include <sys/types.h>

#include "wrapper.h"

int uvs_rte_errno(void)
{
	return rte_errno;
}

static uvs_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t length)
{
	(void)cookie;
	log_sink(rte_log_cur_msg_loglevel(), text, length);
	return (ssize_t)length;
}

int uvs_log_redirect(uvs_log_sink sink)
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -1;
	return rte_openlog_stream(stream);
}
