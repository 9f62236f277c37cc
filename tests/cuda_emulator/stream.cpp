#include "internal.h"

using millrace::emulator::Mark;

CUstream_st::CUstream_st(int device, millrace::emulator::Arena& arena) : device_(device), arena_(arena) {
  static std::atomic<std::uint64_t> made{0};
  number_ = (std::uint64_t{1} << 32) + ++made;
  auto* first = new Node;
  last_.store(first);
  thread_ = std::thread([this, first] { run(first); });
}

CUstream_st::~CUstream_st() {
  push_host([this] { stopped_ = true; });
  thread_.join();
}

/// Now and then a stream is late, so that whoever did not wait for it shows.
void CUstream_st::delay() {
  const std::uint64_t random = millrace::emulator::random_bits(number_, ++delays_);
  if (random % 64 == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(random / 64 % 1000));
  }
}

void CUstream_st::push(std::function<void()> work, bool memory) {
  auto* node = new Node{.work = std::move(work), .memory = memory};
  last_.exchange(node, std::memory_order_acq_rel)->next.store(node, std::memory_order_release);
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();
}

void CUstream_st::run(Node* node) {
  bool open = false;
  const auto let_in = [&](bool wanted) {
    if (std::exchange(open, wanted) != wanted) {
      wanted ? arena_.open() : arena_.close();
    }
  };
  for (std::uint64_t done = 0; !stopped_; done_.store(++done, std::memory_order_release)) {
    if (pushed_.load(std::memory_order_acquire) == done) {
      let_in(false);
      pushed_.wait(done, std::memory_order_acquire);
    }
    Node* next = nullptr;
    while ((next = node->next.load(std::memory_order_acquire)) == nullptr) {
      std::this_thread::yield();  // another thread pushed behind one that is still linking
    }
    delete std::exchange(node, next);
    let_in(node->memory);
    if (!node->memory || error() == cudaSuccess) {
      delay();
      node->work();
    }
    node->work = nullptr;
  }
  let_in(false);
  delete node;
}

std::shared_ptr<Mark> CUstream_st::record() {
  auto mark = std::make_shared<Mark>();
  push_host([mark] {
    mark->time = std::chrono::steady_clock::now();
    mark->done.store(true, std::memory_order_release);
    mark->done.notify_all();
  });
  return mark;
}
