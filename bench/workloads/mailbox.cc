// SPDX-License-Identifier: Apache-2.0
// Mailbox stress with mixed sizes: threads allocate, keep some blocks in tables of their own and
// swap others through shared mailboxes, so that about a third is freed by another thread. In
// rounds: at the end of each, threads end and new ones take over what is left.
//   mailbox [threads] [rounds] [operations]
#include <atomic>
#include <thread>
#include <vector>

#include "bench.h"

namespace {

struct Parcel {
  uint32_t size;
  uint32_t tag;
};

constexpr int kMailboxes = 512;
std::atomic<Parcel*> g_mailboxes[kMailboxes];
std::atomic<uint64_t> g_made, g_dropped;

Parcel* Make(Rng& rng) {
  // Mostly small, a tail up to 32 KiB, and one in 4096 between 32 and 256 KiB.
  size_t size = RngSkewed(&rng, 4, RngBelow(&rng, 16) == 0 ? 15 : 9);
  if (RngBelow(&rng, 4096) == 0) size = RngSkewed(&rng, 15, 18);
  void* block = Must(malloc(size));
  Fill(block, size, size);
  Parcel* parcel = static_cast<Parcel*>(block);
  parcel->size = uint32_t(size);
  parcel->tag = uint32_t(RngNext(&rng));
  return parcel;
}

uint64_t Drop(Parcel* parcel) {
  if (!parcel) return 0;
  const uint32_t size = parcel->size;
  const auto* bytes = reinterpret_cast<const unsigned char*>(parcel);
  Expect(size <= sizeof(Parcel) || bytes[size - 1] == (size & 0xff), "parcel contents");
  const uint64_t value = uint64_t(parcel->tag) + size;
  free(parcel);
  return value;
}

void Work(uint64_t seed, long operations, std::vector<Parcel*>* kept) {
  Rng rng = RngSeed(seed);
  uint64_t made = 0, dropped = 0;
  for (long i = 0; i < operations; ++i) {
    Parcel* parcel = Make(rng);
    made += uint64_t(parcel->tag) + parcel->size;
    if (RngBelow(&rng, 3) == 0) {
      parcel = g_mailboxes[RngBelow(&rng, kMailboxes)].exchange(parcel, std::memory_order_acq_rel);
      dropped += Drop(parcel);
    } else {
      Parcel*& place = (*kept)[RngBelow(&rng, kept->size())];
      dropped += Drop(place);
      place = parcel;
    }
  }
  // Half of what was kept goes back at the end of the round, the rest is inherited.
  for (size_t i = 0; i < kept->size(); i += 2) {
    dropped += Drop((*kept)[i]);
    (*kept)[i] = nullptr;
  }
  g_made += made;
  g_dropped += dropped;
}

}  // namespace

int main(int argc, char** argv) {
  const long threads = Argument(argc, argv, 1, 4);
  const long rounds = Argument(argc, argv, 2, 25);
  const long operations = Argument(argc, argv, 3, 100000);
  std::vector<std::vector<Parcel*>> kept(size_t(threads), std::vector<Parcel*>(4000));
  for (long round = 0; round < rounds; ++round) {
    std::vector<std::thread> crew;
    for (long t = 0; t < threads; ++t) {
      crew.emplace_back(Work, uint64_t(700 + round * 100 + t), operations,
                        &kept[size_t((t + round) % threads)]);
    }
    for (std::thread& thread : crew) thread.join();
  }
  uint64_t dropped = 0;
  for (auto& box : g_mailboxes) dropped += Drop(box.load());
  for (auto& table : kept) {
    for (Parcel* parcel : table) dropped += Drop(parcel);
  }
  g_dropped += dropped;
  Expect(g_made == g_dropped, "every parcel dropped once");
  return Finish(Mix(0, g_made));
}
