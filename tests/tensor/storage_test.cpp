#include "tensor/storage.h"

#include <cstring>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

#include "base/error.h"

namespace millrace {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCached = false;
#else
constexpr bool kCached = true;
#endif

TEST(Storage, IsAlignedAndWritable) {
  for (std::size_t bytes : {0, 1, 63, 64, 65, 511, 512, 513, 4095, 4097, 1 << 20, (2 << 20) + 1, 9 << 20}) {
    const auto storage = Storage::allocate(bytes, kCpu);
    EXPECT_EQ(storage->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(storage->data()) % 64, 0u);
    std::memset(storage->data(), 0x5a, bytes);
  }
}

TEST(Storage, NeverOverlaps) {
  std::vector<std::shared_ptr<Storage>> blocks;
  for (std::size_t i = 0; i < 2000; ++i) {
    blocks.push_back(Storage::allocate(1 + i * 7 % 5000, kCpu));
    std::memset(blocks.back()->data(), static_cast<int>(i & 0xff), blocks.back()->bytes());
    if (i % 3 == 0) {
      blocks[i / 2].reset();
    }
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i]) {
      continue;
    }
    for (std::size_t k = 0; k < blocks[i]->bytes(); ++k) {
      ASSERT_EQ(blocks[i]->data()[k], std::byte(i & 0xff)) << i;
    }
  }
}

TEST(Storage, ReusesBlocksOfOneSize) {
  if (!kCached) {
    GTEST_SKIP() << "sanitizers bypass the cache";
  }
  std::byte* first = nullptr;
  { first = Storage::allocate(3 << 20, kCpu)->data(); }
  const std::size_t held = cpu_memory_use().live;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Storage::allocate((3 << 20) - 5, kCpu)->data(), first);
  }
  EXPECT_EQ(cpu_memory_use().live, held);
}

TEST(Storage, WastesAtMostAnEighth) {
  for (std::size_t bytes = 600; bytes < (std::size_t{1} << 26); bytes = bytes * 9 / 8 + 13) {
    std::thread([bytes] {  // a new thread has an empty cache
      const std::size_t before = cpu_memory_use().live;
      const auto storage = Storage::allocate(bytes, kCpu);
      const std::size_t taken = cpu_memory_use().live - before;
      EXPECT_GE(taken, bytes);
      EXPECT_LE(taken, bytes + bytes / 8 + 64);
    })
        .join();
  }
}

TEST(Storage, DoesNotGrowWhenAnotherThreadFrees) {
  const std::size_t before = cpu_memory_use().live;
  for (int round = 0; round < 50; ++round) {
    auto block = Storage::allocate(1 << 20, kCpu);
    std::thread([moved = std::move(block)]() mutable { moved.reset(); }).join();
  }
  std::thread consumer([] {
    for (int round = 0; round < 50; ++round) {
      std::shared_ptr<Storage> block;
      std::thread([&] { block = Storage::allocate(1 << 20, kCpu); }).join();
    }  // frees what others made: keeps nothing of it
    EXPECT_LE(cpu_memory_use().live, cpu_memory_use().peak);
  });
  consumer.join();
  EXPECT_LE(cpu_memory_use().live, before + (std::size_t{4} << 20));
}

TEST(Storage, OutlivesTheThreadThatMadeIt) {
  std::shared_ptr<Storage> kept;
  std::thread([&] {
    kept = Storage::allocate(4096, kCpu);
    std::memset(kept->data(), 7, 4096);
  }).join();
  EXPECT_EQ(kept->data()[4095], std::byte{7});
}

TEST(Storage, SaysHowMuchWasAskedFor) {
  try {
    Storage::allocate(std::size_t{1} << 60, kCpu);
    FAIL() << "got memory that no machine has";
  } catch (const MachineError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(std::size_t{1} << 60)), std::string::npos)
        << error.what();
  }
}

TEST(Storage, WrapsAndParts) {
  int released = 0;
  char memory[100] = {};
  auto whole = Storage::wrap(memory, sizeof memory, kCpu, [&] { ++released; });
  auto part = Storage::part_of(whole, 40, 60);
  EXPECT_EQ(static_cast<void*>(part->data()), memory + 40);
  part->bump_version();
  EXPECT_EQ(part->version(), 1u);
  EXPECT_EQ(whole->version(), 0u);
  EXPECT_THROW(Storage::part_of(whole, 41, 60), InputError);
  whole.reset();
  EXPECT_EQ(released, 0);
  part.reset();
  EXPECT_EQ(released, 1);
}

}  // namespace
}  // namespace millrace
