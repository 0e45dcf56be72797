// Sends TCP frames that belong to no connection as fast as the link takes them, for the flood scenario.
//
//   flood INTERFACE DESTINATION_MAC SOURCE_ADDRESS DESTINATION_ADDRESS PORT syn|ack SECONDS [FRAMES_PER_SECOND]
//
// Source ports and sequence numbers vary. Prints "FRAMES SECONDS". Written in C for its speed only: a script reaches a
// twentieth of what a veth pair carries.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DIFFERENT_FRAMES = 8192, BATCH = 64 };

struct frame {
    struct ether_header ethernet;
    struct iphdr ip;
    struct tcphdr tcp;
    char padding[6];
} __attribute__((packed));

static struct frame frames[DIFFERENT_FRAMES];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned sum_words(const void *data, size_t bytes, unsigned sum) {
    const unsigned char *p = data;
    for (size_t i = 0; i + 1 < bytes; i += 2) sum += (unsigned)p[i] << 8 | p[i + 1];
    return sum;
}

static unsigned short folded(unsigned sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return htons((unsigned short)~sum);
}

static void build(struct frame *f, const unsigned char *to, const unsigned char *from, in_addr_t source,
                  in_addr_t destination, int port, int syn) {
    memcpy(f->ethernet.ether_dhost, to, ETH_ALEN);
    memcpy(f->ethernet.ether_shost, from, ETH_ALEN);
    f->ethernet.ether_type = htons(ETHERTYPE_IP);
    f->ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons(sizeof f->ip + sizeof f->tcp), .ttl = 64,
                           .protocol = IPPROTO_TCP, .id = (unsigned short)rand(), .saddr = source, .daddr = destination};
    f->ip.check = folded(sum_words(&f->ip, sizeof f->ip, 0));
    f->tcp = (struct tcphdr){.source = htons((unsigned short)(1024 + rand() % 64000)), .dest = htons((unsigned short)port),
                             .seq = (unsigned)rand(), .ack_seq = syn ? 0 : (unsigned)rand(), .doff = 5,
                             .syn = syn ? 1 : 0, .ack = syn ? 0 : 1, .window = htons(1024)};
    f->tcp.check = folded(sum_words(&f->tcp, sizeof f->tcp, sum_words(&f->ip.saddr, 8, IPPROTO_TCP + sizeof f->tcp)));
}

int main(int argc, char **argv) {
    if (argc < 8) {
        fprintf(stderr, "usage: flood INTERFACE MAC SOURCE DESTINATION PORT syn|ack SECONDS [FRAMES_PER_SECOND]\n");
        return 2;
    }
    unsigned char to[ETH_ALEN];
    if (sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3, to + 4, to + 5) != ETH_ALEN) return 2;
    double seconds = atof(argv[7]), limit = argc > 8 ? atof(argv[8]) : 0;

    int packets = socket(AF_PACKET, SOCK_RAW, 0);
    if (packets < 0) fail("socket");
    struct ifreq request = {0};
    strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
    if (ioctl(packets, SIOCGIFHWADDR, &request) < 0) fail(argv[1]);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    if (bind(packets, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    int one = 1;
    setsockopt(packets, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);

    for (int i = 0; i < DIFFERENT_FRAMES; i++)
        build(&frames[i], to, (unsigned char *)request.ifr_hwaddr.sa_data, inet_addr(argv[3]), inet_addr(argv[4]),
              atoi(argv[5]), !strcmp(argv[6], "syn"));

    struct mmsghdr batch[BATCH] = {0};
    struct iovec vectors[BATCH];
    double start = now(), elapsed = 0;
    unsigned long sent = 0;
    while ((elapsed = now() - start) < seconds) {
        if (limit > 0 && (double)sent > elapsed * limit) {
            usleep(200);
            continue;
        }
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){&frames[(sent + (unsigned)i) % DIFFERENT_FRAMES], sizeof(struct frame)};
            batch[i].msg_hdr.msg_iov = &vectors[i];
            batch[i].msg_hdr.msg_iovlen = 1;
        }
        int n = sendmmsg(packets, batch, BATCH, 0);
        if (n > 0) sent += (unsigned)n;
    }
    printf("%lu %.3f\n", sent, elapsed);
    return 0;
}
