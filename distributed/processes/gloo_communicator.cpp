#include "distributed/processes/gloo_communicator.h"

#include <algorithm>
#include <csignal>
#include <gloo/allreduce.h>
#include <gloo/context.h>
#include <gloo/math.h>
#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <mutex>
#include <random>

#include "base/error.h"

namespace millrace {
namespace {

using Milliseconds = std::chrono::milliseconds;
using Buffers = std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>>;

/// Gloo writes to a connection whose other end may be gone: that must be an error and not the end of the
/// process.
void ignore_broken_pipes() {
  struct sigaction now {};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) {
    std::signal(SIGPIPE, SIG_IGN);
  }
}

/// Connections to all other ranks.
class Mesh : public gloo::Context {
 public:
  Mesh(Rendezvous& rendezvous) : gloo::Context(rendezvous.place().rank, rendezvous.place().size) {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = rendezvous.own_address();
    device_ = gloo::transport::tcp::CreateDevice(attributes);
    transportContext_ = device_->createContext(rank, size);
    const auto timeout = std::chrono::duration_cast<Milliseconds>(rendezvous.timeout());
    setTimeout(timeout);
    transportContext_->setTimeout(timeout / 5);  // Gloo gives a new connection five times as long
    std::string addresses;
    for (int r = 0; r < size; ++r) {
      if (r != rank) {
        auto& pair = transportContext_->createPair(r);
        pair->setLocalRank(0);
        const std::vector<char> address = pair->address().bytes();
        addresses.append(address.begin(), address.end());
      }
    }
    addresses_ = rendezvous.all_gather("Gloo addresses", addresses);
  }

  void connect() {
    for (int r = 0; r < size; ++r) {
      if (r == rank) {
        continue;
      }
      // Rank r has an address for each of the others, of equal length.
      const std::string& theirs = addresses_[static_cast<std::size_t>(r)];
      const std::size_t length = theirs.size() / static_cast<std::size_t>(size - 1);
      const std::string mine =
          theirs.substr(static_cast<std::size_t>(rank < r ? rank : rank - 1) * length, length);
      getPair(r)->connect({mine.begin(), mine.end()});
    }
  }

 private:
  std::vector<std::string> addresses_;
};

class GlooCommunicator final : public MessageCommunicator {
 public:
  GlooCommunicator(std::shared_ptr<Rendezvous> shared, SumOrder sum_order)
      : MessageCommunicator(std::move(shared), sum_order) {
    ignore_broken_pipes();
    connect();
    rendezvous().on_failure([this] { end(); });
  }
  ~GlooCommunicator() override { rendezvous().on_failure(nullptr); }

 protected:
  void transfer(std::span<const Message> sends, std::span<const Message> receives) override {
    const auto deadline = std::chrono::steady_clock::now() + rendezvous().timeout();
    const std::uint64_t slot = next_slot_++;
    Buffers sent, received;
    const Registered registered(*this, sent, received);
    // Receives first: what comes then goes to its place at once.
    for (const Message& message : receives) {
      add(received, message)->recv(message.rank, slot);
    }
    for (const Message& message : sends) {
      add(sent, message)->send(message.rank, slot);
    }
    for (auto& buffer : received) {
      check(buffer->waitRecv(left(deadline)));
    }
    for (auto& buffer : sent) {
      check(buffer->waitSend(left(deadline)));
    }
  }

  void sum_by_engine(Tensor& tensor) override {
    const auto count = static_cast<std::size_t>(tensor.numel());
    gloo::AllreduceOptions options(mesh_);
    if (tensor.dtype() == DType::f32) {
      options.setOutput(tensor.data<float>(), count);
      options.setReduceFunction(
          static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::sum<float>));
    } else {
      options.setOutput(tensor.data<double>(), count);
      options.setReduceFunction(
          static_cast<void (*)(void*, const void*, const void*, size_t)>(&gloo::sum<double>));
    }
    options.setTag(static_cast<std::uint32_t>(next_slot_++));
    gloo::allreduce(options);
  }

 private:
  /// The buffers of a transfer, while `end` may find them.
  class Registered {
   public:
    Registered(GlooCommunicator& owner, Buffers& sent, Buffers& received)
        : owner_(owner), sent_(sent), received_(received) {}
    ~Registered() {
      const std::lock_guard lock(owner_.mutex_);
      sent_.clear();
      received_.clear();
      owner_.waiting_ = {};
    }
    Registered(const Registered&) = delete;
    Registered& operator=(const Registered&) = delete;

   private:
    GlooCommunicator& owner_;
    Buffers &sent_, &received_;
  };

  /// Every connection must carry the same random number: Gloo takes whoever comes first to its ports. If a
  /// stranger did, all connect anew.
  void connect() {
    constexpr int kTries = 3;
    std::string problem;
    for (int attempt = 0; attempt < kTries; ++attempt) {
      mesh_.reset();
      std::random_device random;
      const std::string number =
          rendezvous()
              .all_gather("Gloo number", std::to_string(std::uint64_t{random()} << 32 | random()))
              .front();
      problem.clear();
      try {
        mesh_ = std::make_shared<Mesh>(rendezvous());
        mesh_->connect();
        greet(std::strtoull(number.c_str(), nullptr, 10));
      } catch (const CommunicatorError&) {
        throw;
      } catch (const std::exception& error) {
        problem = error.what();
      }
      const std::vector<std::string> all = rendezvous().all_gather("Gloo connections", problem);
      const auto failed = std::ranges::find_if(all, [](const std::string& one) { return !one.empty(); });
      if (failed == all.end()) {
        return;
      }
      problem = fmt::format("rank {}: {}", failed - all.begin(), *failed);
    }
    throw CommunicatorError("joining: the ranks cannot be connected, tried {} times; {}", kTries, problem);
  }

  void greet(std::uint64_t number) {
    std::vector<std::uint64_t> numbers(static_cast<std::size_t>(size()), 0);
    std::vector<Message> sends, receives;
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) {
        sends.push_back({r, &number, sizeof(number)});
        receives.push_back({r, &numbers[static_cast<std::size_t>(r)], sizeof(number)});
      }
    }
    transfer(sends, receives);
    numbers[static_cast<std::size_t>(rank())] = number;
    if (!std::ranges::all_of(numbers, [&](std::uint64_t other) { return other == number; })) {
      throw std::runtime_error("a connection is not with a rank of this run");
    }
  }

  gloo::transport::UnboundBuffer* add(Buffers& buffers, const Message& message) {
    const std::lock_guard lock(mutex_);
    check(!ended_);
    buffers.push_back(mesh_->createUnboundBuffer(message.data, message.bytes));
    waiting_.push_back(buffers.back().get());
    return buffers.back().get();
  }

  static void check(bool went_well) {
    if (!went_well) {
      throw std::runtime_error("the run has ended");
    }
  }

  static Milliseconds left(std::chrono::steady_clock::time_point deadline) {
    return std::max(Milliseconds(1),
                    std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now()));
  }

  /// Wakes the thread that waits for messages.
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    for (gloo::transport::UnboundBuffer* buffer : waiting_) {
      buffer->abortWaitRecv();
      buffer->abortWaitSend();
    }
  }

  std::shared_ptr<Mesh> mesh_;
  std::uint64_t next_slot_ = 0;
  std::mutex mutex_;  // for the two below
  std::vector<gloo::transport::UnboundBuffer*> waiting_;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<Communicator> make_gloo_communicator(std::shared_ptr<Rendezvous> rendezvous,
                                                     SumOrder sum_order) {
  return std::make_unique<GlooCommunicator>(std::move(rendezvous), sum_order);
}

}  // namespace millrace
