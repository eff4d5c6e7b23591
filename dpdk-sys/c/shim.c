/* Inline functions of DPDK as real ones. None is called per packet on the forwarding path: bursts
 * go through rte_eth_fp_ops from Rust, and what is forwarded is freed by the driver. */
#define _GNU_SOURCE
#include "wrapper.h"

#include <string.h>

int dpdk_sys_errno(void) { return rte_errno; }

uint32_t dpdk_sys_lcore_id(void) { return rte_lcore_id(); }

struct rte_mbuf *dpdk_sys_pktmbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

int dpdk_sys_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count) {
    return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void dpdk_sys_pktmbuf_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }

void *dpdk_sys_pktmbuf_append(struct rte_mbuf *mbuf, uint16_t len) {
    return rte_pktmbuf_append(mbuf, len);
}

int dpdk_sys_pktmbuf_read(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t len, void *out) {
    const void *at = rte_pktmbuf_read(mbuf, offset, len, out);
    if (at == NULL)
        return -1;
    if (at != out)
        memcpy(out, at, len);
    return 0;
}

int dpdk_sys_link(uint16_t port, int *up, uint32_t *speed_mbps, int *full_duplex) {
    struct rte_eth_link link;
    memset(&link, 0, sizeof(link));
    int rc = rte_eth_link_get_nowait(port, &link);
    if (rc == 0) {
        *up = link.link_status == RTE_ETH_LINK_UP;
        *speed_mbps = link.link_speed;
        *full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    }
    return rc;
}

typedef void (*log_sink)(int severity, const char *text, size_t len);
/* EAL has one log stream per process. */
static log_sink sink_of_process;

static ssize_t log_write(void *cookie, const char *text, size_t len) {
    (void)cookie;
    sink_of_process(rte_log_cur_msg_loglevel(), text, len);
    return (ssize_t)len;
}

FILE *dpdk_sys_log_stream(log_sink sink) {
    cookie_io_functions_t io = {.write = log_write};
    sink_of_process = sink;
    FILE *stream = fopencookie(NULL, "w", io);
    if (stream != NULL)
        setvbuf(stream, NULL, _IOLBF, 0);
    return stream;
}
