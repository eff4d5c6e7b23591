/* Inline functions of DPDK as real ones. None is called per packet on the forwarding path: bursts
 * go through rte_eth_fp_ops from Rust, and what is forwarded is freed by the driver. */
#define _GNU_SOURCE
#include "wrapper.h"

#include <rte_thash.h>
#include <string.h>

int dpdk_sys_errno(void) { return rte_errno; }

int dpdk_sys_memory_socket(const void *address) {
    const struct rte_memseg_list *list = rte_mem_virt2memseg_list(address);
    return list == NULL ? SOCKET_ID_ANY : list->socket_id;
}

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

int dpdk_sys_rss_is_toeplitz(const struct rte_eth_rss_conf *conf) {
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
    return conf->algorithm == RTE_ETH_HASH_FUNCTION_DEFAULT ||
        conf->algorithm == RTE_ETH_HASH_FUNCTION_TOEPLITZ;
#else
    (void)conf;
    return 1;
#endif
}

uint32_t dpdk_sys_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key) {
    return rte_softrss(tuple, words, key);
}

struct rte_flow *dpdk_sys_flow_to_queue(uint16_t port, int v6, const uint8_t *destination,
    uint8_t protocol, uint16_t queue, int *error, const char **message) {
    struct rte_flow_attr attr;
    struct rte_flow_item_ipv4 ip4, ip4_mask;
    struct rte_flow_item_ipv6 ip6, ip6_mask;
    struct rte_flow_action_queue to = {.index = queue};
    struct rte_flow_item pattern[4];
    struct rte_flow_action actions[2];
    struct rte_flow_error why;

    memset(&attr, 0, sizeof(attr));
    memset(&ip4, 0, sizeof(ip4));
    memset(&ip4_mask, 0, sizeof(ip4_mask));
    memset(&ip6, 0, sizeof(ip6));
    memset(&ip6_mask, 0, sizeof(ip6_mask));
    memset(pattern, 0, sizeof(pattern));
    memset(actions, 0, sizeof(actions));
    memset(&why, 0, sizeof(why));

    attr.ingress = 1;
    pattern[0].type = RTE_FLOW_ITEM_TYPE_ETH;
    if (v6) {
        memcpy(&ip6.hdr.dst_addr, destination, 16);
        memset(&ip6_mask.hdr.dst_addr, 0xff, 16);
        pattern[1].type = RTE_FLOW_ITEM_TYPE_IPV6;
        pattern[1].spec = &ip6;
        pattern[1].mask = &ip6_mask;
    } else {
        memcpy(&ip4.hdr.dst_addr, destination, 4);
        memset(&ip4_mask.hdr.dst_addr, 0xff, 4);
        pattern[1].type = RTE_FLOW_ITEM_TYPE_IPV4;
        pattern[1].spec = &ip4;
        pattern[1].mask = &ip4_mask;
    }
    pattern[2].type = protocol == 6 ? RTE_FLOW_ITEM_TYPE_TCP
        : protocol == 17            ? RTE_FLOW_ITEM_TYPE_UDP
                                    : RTE_FLOW_ITEM_TYPE_END;
    pattern[3].type = RTE_FLOW_ITEM_TYPE_END;
    actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
    actions[0].conf = &to;
    actions[1].type = RTE_FLOW_ACTION_TYPE_END;

    struct rte_flow *flow = rte_flow_create(port, &attr, pattern, actions, &why);
    *error = flow == NULL ? rte_errno : 0;
    *message = why.message;
    return flow;
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
