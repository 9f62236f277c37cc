#include "distributed/processes/mpi_communicator.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mpi.h>
#include <mutex>
#include <random>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "base/tell.h"

namespace millrace {
namespace {

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) {
    return;
  }
  std::string text(MPI_MAX_ERROR_STRING, '\0');
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommunicatorError("{}: {}", call, text.substr(0, static_cast<std::size_t>(length)));
}

/// The one thread that calls MPI, from its beginning to its end.
class MpiThread {
 public:
  MpiThread() : thread_([this] { work(); }) {
    run([] {
      int is_initialized = 0, provided = 0;
      MPI_Initialized(&is_initialized);
      if (is_initialized != 0) {
        throw InputError("mpi: this process has begun MPI already; make one group of processes");
      }
      check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
      check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    });
  }
  ~MpiThread() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  MpiThread(const MpiThread&) = delete;
  MpiThread& operator=(const MpiThread&) = delete;

  /// Runs `job` in the thread and returns when it is done. @throws what it threw.
  void run(std::function<void()> job) {
    std::unique_lock lock(mutex_);
    job_ = std::move(job);
    changed_.notify_all();
    changed_.wait(lock, [&] { return job_ == nullptr; });
    if (error_) {
      std::rethrow_exception(std::exchange(error_, nullptr));
    }
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return job_ != nullptr || ends_; });
      if (job_ == nullptr) {
        return;
      }
      lock.unlock();
      std::exception_ptr error;
      try {
        job_();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      error_ = error;
      job_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> job_;
  std::exception_ptr error_;
  bool ends_ = false;
  std::thread thread_;
};

class MpiCommunicator final : public MessageCommunicator {
 public:
  MpiCommunicator(std::unique_ptr<MpiThread> thread, std::shared_ptr<Rendezvous> shared, SumOrder sum_order)
      : MessageCommunicator(std::move(shared), sum_order), thread_(std::move(thread)) {
    rendezvous().on_failure([this] { ended_ = true; });
  }

  /// MPI ends together; without the others it is left as it is, and mpirun sees to the rest.
  ~MpiCommunicator() override {
    rendezvous().on_failure(nullptr);
    try {
      thread_->run([this] {
        if (!ended_) {
          MPI_Request request{};
          check(MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier");
          complete({&request, 1});
          MPI_Finalize();
        }
      });
    } catch (const std::exception& error) {
      tell(fmt::format("millrace: MPI could not be ended: {}", error.what()));
    }
  }

 protected:
  void transfer(std::span<const Message> sends, std::span<const Message> receives) override {
    thread_->run([&] {
      std::vector<MPI_Request> requests;
      for (const Message& message : receives) {
        for_pieces(message, [&](void* data, int bytes) {
          check(
              MPI_Irecv(data, bytes, MPI_BYTE, message.rank, kTag, MPI_COMM_WORLD, &requests.emplace_back()),
              "MPI_Irecv");
        });
      }
      for (const Message& message : sends) {
        for_pieces(message, [&](void* data, int bytes) {
          check(
              MPI_Isend(data, bytes, MPI_BYTE, message.rank, kTag, MPI_COMM_WORLD, &requests.emplace_back()),
              "MPI_Isend");
        });
      }
      complete(requests);
    });
  }

  void sum_by_engine(Tensor& tensor) override {
    thread_->run([&] {
      std::vector<MPI_Request> requests;
      const MPI_Datatype type = tensor.dtype() == DType::f32 ? MPI_FLOAT : MPI_DOUBLE;
      const auto size = static_cast<int>(size_of(tensor.dtype()));
      for_pieces({.rank = 0, .data = tensor.raw(), .bytes = static_cast<std::size_t>(tensor.numel() * size)},
                 [&](void* data, int bytes) {
                   check(MPI_Iallreduce(MPI_IN_PLACE, data, bytes / size, type, MPI_SUM, MPI_COMM_WORLD,
                                        &requests.emplace_back()),
                         "MPI_Iallreduce");
                 });
      complete(requests);
    });
  }

 private:
  static constexpr int kTag = 1;

  /// MPI counts in int.
  template <typename Use>
  static void for_pieces(const Message& message, Use&& use) {
    constexpr std::size_t kMost = std::size_t{1} << 30;
    for (std::size_t at = 0; at < message.bytes; at += kMost) {
      use(static_cast<std::byte*>(message.data) + at, static_cast<int>(std::min(kMost, message.bytes - at)));
    }
  }

  /// Looks at what is on its way until it has come: often at first, then with short sleeps.
  void complete(std::span<MPI_Request> requests) {
    const auto deadline = std::chrono::steady_clock::now() + rendezvous().timeout();
    for (int looks = 0;; ++looks) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
            "MPI_Testall");
      if (done != 0) {
        return;
      }
      if (ended_) {
        throw CommunicatorError("the run has ended");
      }
      if (looks > 100) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        if (std::chrono::steady_clock::now() > deadline) {
          throw CommunicatorError("MPI brought nothing in time");
        }
      }
    }
  }

  std::unique_ptr<MpiThread> thread_;
  std::atomic<bool> ended_{false};
};

std::string host_name(const Place& place) {
  if (place.local_size == place.size) {
    return "127.0.0.1";
  }
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

/// Rank 0 listens where it finds a port, and tells the others by MPI where, and the token of this run.
Socket agree_on_master(MpiThread& thread, Place& place) {
  Socket listener;
  char text[512] = "";
  if (place.rank == 0) {
    const std::string host = host_name(place);
    listener = listen_at(host, 0);
    std::random_device random;
    const std::string told = fmt::format("{} {} {}{}", host, listener.port(), random(), random());
    told.copy(text, sizeof(text) - 1);
  }
  thread.run([&] { check(MPI_Bcast(text, sizeof(text), MPI_CHAR, 0, MPI_COMM_WORLD), "MPI_Bcast"); });
  char host[256] = "", token[64] = "";
  if (std::sscanf(text, "%255s %d %63s", host, &place.master_port, token) != 3) {
    throw CommunicatorError("mpi: rank 0 told '{}', expected a host, a port and a token", text);
  }
  place.master_host = host;
  place.token = token;
  return listener;
}

}  // namespace

std::pair<std::shared_ptr<Rendezvous>, std::unique_ptr<Communicator>> make_mpi_communicator(
    Place place, std::chrono::duration<double> timeout, SumOrder sum_order) {
  auto thread = std::make_unique<MpiThread>();
  int rank = 0, size = 0;
  thread->run([&] {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
  });
  if (rank != place.rank || size != place.size) {
    throw InputError(
        "engine mpi: MPI counts this process as {} of {}, and {} as {} of {}; start it with mpirun alone",
        rank, size, place.told_by, place.rank, place.size);
  }
  Socket listener;
  if (place.master_host.empty()) {
    listener = agree_on_master(*thread, place);
  }
  auto rendezvous = std::make_shared<Rendezvous>(place, timeout, std::move(listener));
  auto communicator = std::make_unique<MpiCommunicator>(std::move(thread), rendezvous, sum_order);
  return {std::move(rendezvous), std::move(communicator)};
}

}  // namespace millrace
