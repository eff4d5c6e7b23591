/* What the bindings see. A real file: bindgen's header_contents breaks on DPDK's static inlines.
 *
 * Everything that moved or was renamed between DPDK versions is taken here, in C, by name, and
 * given to Rust as a constant: offsets into rte_mbuf (its anonymous unions changed in 23.11 and
 * 24.11), flag bits (macros that bindgen cannot evaluate). */
#ifndef DPDK_SYS_WRAPPER_H
#define DPDK_SYS_WRAPPER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_bus.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_version.h>

#define OFFSET(field) offsetof(struct rte_mbuf, field)
static const size_t DPDK_SYS_MBUF_SIZE = sizeof(struct rte_mbuf);
static const size_t DPDK_SYS_MBUF_BUF_ADDR = OFFSET(buf_addr);
static const size_t DPDK_SYS_MBUF_DATA_OFF = OFFSET(data_off);
static const size_t DPDK_SYS_MBUF_OL_FLAGS = OFFSET(ol_flags);
static const size_t DPDK_SYS_MBUF_PKT_LEN = OFFSET(pkt_len);
static const size_t DPDK_SYS_MBUF_DATA_LEN = OFFSET(data_len);
static const size_t DPDK_SYS_MBUF_RSS_HASH = OFFSET(hash.rss);
static const size_t DPDK_SYS_MBUF_TX_OFFLOAD = OFFSET(tx_offload);
#undef OFFSET

static const uint64_t DPDK_SYS_TX_L2_LEN_SHIFT = 0;
static const uint64_t DPDK_SYS_TX_L3_LEN_SHIFT = RTE_MBUF_L2_LEN_BITS;
static const uint64_t DPDK_SYS_TX_L4_LEN_SHIFT = RTE_MBUF_L2_LEN_BITS + RTE_MBUF_L3_LEN_BITS;

static const uint64_t DPDK_SYS_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t DPDK_SYS_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t DPDK_SYS_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t DPDK_SYS_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t DPDK_SYS_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_SYS_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_SYS_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;

static const uint64_t DPDK_SYS_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t DPDK_SYS_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t DPDK_SYS_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t DPDK_SYS_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t DPDK_SYS_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t DPDK_SYS_TX_L4_MASK = RTE_MBUF_F_TX_L4_MASK;
/* Every transmit request this crate's users set: cleared before new ones are. */
static const uint64_t DPDK_SYS_TX_REQUESTS = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IPV6 |
    RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_L4_MASK;

static const uint64_t DPDK_SYS_OFFLOAD_RX_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_RX_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_RX_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t DPDK_SYS_OFFLOAD_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t DPDK_SYS_OFFLOAD_TX_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_TX_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_TX_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_SYS_OFFLOAD_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

static const uint32_t DPDK_SYS_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t DPDK_SYS_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint64_t DPDK_SYS_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t DPDK_SYS_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t DPDK_SYS_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t DPDK_SYS_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t DPDK_SYS_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t DPDK_SYS_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t DPDK_SYS_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t DPDK_SYS_RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t DPDK_SYS_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint32_t DPDK_SYS_RETA_GROUP = RTE_ETH_RETA_GROUP_SIZE;

static const uint32_t DPDK_SYS_LOG_ERR = RTE_LOG_ERR;
static const uint32_t DPDK_SYS_LOG_WARNING = RTE_LOG_WARNING;
static const uint32_t DPDK_SYS_LOG_NOTICE = RTE_LOG_NOTICE;
static const uint32_t DPDK_SYS_LOG_INFO = RTE_LOG_INFO;

static const uint32_t DPDK_SYS_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t DPDK_SYS_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const int32_t DPDK_SYS_SOCKET_ANY = SOCKET_ID_ANY;

/* The thread's rte_errno (a thread-local variable behind a macro). */
int dpdk_sys_errno(void);

/* The NUMA node of DPDK memory at this address, or SOCKET_ID_ANY if it is not DPDK's. */
int dpdk_sys_memory_socket(const void *address);

/* The calling thread's lcore id, or UINT32_MAX for a thread EAL does not know. */
uint32_t dpdk_sys_lcore_id(void);

/* One freshly reset mbuf, or NULL if the pool is empty. */
struct rte_mbuf *dpdk_sys_pktmbuf_alloc(struct rte_mempool *pool);

/* count freshly reset mbufs, all or none. 0, or -ENOENT if the pool has not so many. */
int dpdk_sys_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count);

/* Free one mbuf and the segments chained to it. */
void dpdk_sys_pktmbuf_free(struct rte_mbuf *mbuf);

/* Append len bytes to the first and only segment. NULL: no room. */
void *dpdk_sys_pktmbuf_append(struct rte_mbuf *mbuf, uint16_t len);

/* Copy len bytes from offset on, over all segments, to out. 0, or -1 if the frame is shorter. */
int dpdk_sys_pktmbuf_read(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t len, void *out);

/* Link state without waiting. speed in Mbit/s. Negative errno on failure. */
int dpdk_sys_link(uint16_t port, int *up, uint32_t *speed_mbps, int *full_duplex);

/* Whether the hash is Toeplitz, as far as the driver tells. */
int dpdk_sys_rss_is_toeplitz(const struct rte_eth_rss_conf *conf);

/* The Toeplitz hash as DPDK's own library computes it, of `words` 32-bit words in host order. */
uint32_t dpdk_sys_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key);

/* Make a flow rule: what is sent to this address (4 or, with v6, 16 bytes) and is of this protocol
 * (6 TCP, 17 UDP, 0 any) goes to this queue. NULL: not made; *error is the positive errno and
 * *message the driver's static words about it, or NULL. */
struct rte_flow *dpdk_sys_flow_to_queue(uint16_t port, int v6, const uint8_t *destination,
    uint8_t protocol, uint16_t queue, int *error, const char **message);

/* A stream whose lines go to sink, with EAL's severity (RTE_LOG_*). For rte_openlog_stream. */
FILE *dpdk_sys_log_stream(void (*sink)(int severity, const char *text, size_t len));

#endif
