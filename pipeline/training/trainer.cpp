#include "pipeline/training/trainer.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <utility>

#include "base/team.h"
#include "distributed/group/group.h"
#include "distributed/tree_sum.h"
#include "nn/state.h"
#include "pipeline/training/peers.h"
#include "pipeline/training/replica.h"
#include "pipeline/training/travelling_losses.h"
#include "tensor/device_memory.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/gpu/engine_choices.h"

namespace millrace {
namespace {

/// Also losses that nobody has read yet hold them.
std::vector<std::shared_ptr<Communicator>> shared(std::vector<std::unique_ptr<Communicator>> group) {
  return {std::make_move_iterator(group.begin()), std::make_move_iterator(group.end())};
}

}  // namespace

struct Trainer::Impl {
  Impl(const MakeModule& make_module, const nn::OptimizerOptions& optimizer, const TrainerOptions& asked)
      : options(resolve(asked)),
        peers(options.processes, options.shards),
        communicators(shared(make_group(
            options.devices,
            {.timeout = options.timeout, .sum_order = options.sum_order, .processes = options.processes}))),
        replicas(static_cast<std::size_t>(options.replicas)),
        step_losses(peers.shards().count, communicators),
        team(options.replicas) {
    if (options.devices[0].is_cuda()) {
      GpuArithmetic arithmetic = gpu_arithmetic();
      arithmetic.deterministic = options.sum_order == SumOrder::tree;
      set_gpu_arithmetic(arithmetic);
    }
    std::mutex one_at_a_time;  // the caller's function need not be safe to call from many threads
    const MakeModule make_alone = [&] {
      const std::lock_guard lock(one_at_a_time);
      return make_module();
    };
    together([&](int r) {
      auto& communicator = *communicators[static_cast<std::size_t>(r)];
      replica(r) = std::make_unique<Replica>(make_alone, optimizer, options, communicator);
    });
    changed = communicators[0]->size() > 1;
    switches = replica(0)->switches();
  }

  std::unique_ptr<Replica>& replica(int r) { return replicas[static_cast<std::size_t>(r)]; }

  /// Runs `job(r)` for all replicas. The first failure ends the group, so that no replica waits for one that
  /// is gone.
  template <typename Job>
  void together(Job&& job) {
    if (failed) {
      throw InputError(
          "trainer: an earlier call failed ({}), and the replicas may differ since: make a new trainer",
          failure);
    }
    on_each(job);
    if (failed) {
      team.run([&](int r) {
        if (replica(r)) {
          replica(r)->drain();
        }
      });
      std::rethrow_exception(failed);
    }
  }

  /// Also after a failure.
  template <typename Job>
  void on_each(Job&& job) {
    team.run([&](int r) {
      try {
        job(r);
      } catch (const std::exception& error) {
        fail(r, error.what());
      } catch (...) {
        fail(r, "unknown exception");
      }
    });
  }

  /// In a handler. What the first replica to fail threw is kept before its peers can hear of it and fail as
  /// well.
  void fail(int r, const std::string& reason) {
    const std::lock_guard lock(failure_mutex);
    if (failed) {
      return;
    }
    failed = std::current_exception();
    failure = reason;
    communicators[static_cast<std::size_t>(r)]->abort(reason);
  }

  void check_images(const Batch& batch) const {
    const DType got = batch.shards() > 0 ? batch.shard(0).field("image").dtype() : options.dtype;
    const bool can_convert = got == DType::f32 || (got == DType::u8 && batch.shard(0).pixel_scale);
    if (got != options.dtype && (options.devices[0].is_cpu() || !can_convert)) {
      throw InputError(
          "trainer: got images in {}, expected {}; make the loader and the trainer with equal types", got,
          options.dtype);
    }
  }

  /// Before anything that all processes do: gives everybody rank 0's network, where a caller had one in
  /// hands, and its number of steps; and the engines of convolutions, where new ones were chosen. Returns the
  /// valid samples over all processes.
  std::int64_t begin(std::int64_t valid) {
    notice_switches();
    peers.set_step(steps);
    const std::vector<double> all =
        peers.all(std::vector{static_cast<double>(valid), static_cast<double>(steps), changed ? 1.0 : 0.0,
                              new_engines() ? 1.0 : 0.0});
    double samples = 0, any_changed = 0, any_new_engines = 0;
    for (std::size_t r = 0; r < all.size(); r += 4) {
      samples += all[r];
      any_changed += all[r + 2];
      any_new_engines += all[r + 3];
    }
    if (any_changed > 0) {
      steps = static_cast<std::int64_t>(all[1]);
      const std::vector<double> everybodys = peers.all(replica(0)->host_state());
      const auto first =
          std::span(everybodys).first(everybodys.size() / static_cast<std::size_t>(peers.size()));
      together([&](int r) {
        replica(r)->set_host_state(first);
        replica(r)->synchronize();
      });
      changed = false;
      switches = replica(0)->switches();
    }
    if (any_new_engines > 0) {
      agree_on_engines();
    }
    if (steps == 0 &&
        options.lookahead) {  // what the network begins with may have been changed since it was made
      together([&](int r) { replica(r)->lookahead()->start(); });
    }
    return static_cast<std::int64_t>(samples);
  }

  /// Also those that were moved through a reference which the caller kept.
  void notice_switches() {
    std::vector<std::uint8_t> now = replica(0)->switches();
    if (now != switches) {
      replica(0)->optimizer().flat().check_trainable();
      switches = std::move(now);
      for (const auto& one : replicas) {
        one->set_host_state(replica(0)->host_state());
      }
      changed = communicators[0]->size() > 1;
      rehearsed.clear();  // other kernels may follow
      forget_recorded();
    }
  }

  bool on_gpus_of_peers() const { return peers.size() > 1 && options.devices[0].is_cuda(); }
  bool new_engines() const {
    return on_gpus_of_peers() && (engines_restored || engine_choices().size() != engines_agreed);
  }

  /// Since other engines give other bits, all processes use those that the lowest rank chose.
  void agree_on_engines() {
    engine_choices().import(peers.texts("engines", engine_choices().bytes()));
    engines_agreed = engine_choices().size();
    engines_restored = false;
  }

  /// For each new form of a shard, before ranks do anything together on GPUs: choosing an engine and loading
  /// a kernel may wait for the GPU, and that for a sum in which another rank's thread has yet to join.
  void rehearse(const StepTask& task) {
    const Shape& form = task.batch.shard(0).field("image").shape();
    if (communicators[0]->size() > 1 && options.devices[0].is_cuda() &&
        std::ranges::find(rehearsed, form) == rehearsed.end()) {
      notice_switches();
      together([&](int r) { replica(r)->rehearse(task); });
      if (task.batch.valid() == task.batch.shards() * form[0]) {  // else some pass may have been empty
        rehearsed.push_back(form);
      }
    }
  }

  void forget_recorded() {
    for (const auto& one : replicas) {
      one->forget_recorded();
    }
  }

  void end_step() { peers.set_step(++steps); }

  class EvaluationMode;

  const TrainerOptions options;
  Peers peers;
  std::vector<std::shared_ptr<Communicator>> communicators;
  std::vector<std::unique_ptr<Replica>> replicas;
  std::int64_t steps = 0;
  bool changed = false;
  std::vector<std::uint8_t> switches;  // of replica 0, as all replicas have them
  bool engines_restored = false;
  std::vector<Shape> rehearsed;    // the forms of shards
  std::size_t engines_agreed = 0;  // how many
  LossPlaces step_losses;
  std::vector<double> losses;  // of an evaluation
  std::mutex failure_mutex;
  std::exception_ptr failed;
  std::string failure;  // what it said
  Team team;            // last: its threads end before what they use
};

/// Networks are in evaluation mode, with nothing counted yet, while it lives.
class Trainer::Impl::EvaluationMode {
 public:
  EvaluationMode(Impl& impl, bool confusion) : impl_(impl) {
    impl_.together([&](int r) { impl_.replica(r)->begin_evaluation(confusion); });
  }
  /// A failure is kept, and told by the next call.
  ~EvaluationMode() {
    impl_.on_each([&](int r) { impl_.replica(r)->end_evaluation(); });
  }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Impl& impl_;
};

Trainer::Trainer(MakeModule make_module, const nn::OptimizerOptions& optimizer, TrainerOptions options)
    : impl_(std::make_unique<Impl>(make_module, optimizer, options)) {}
Trainer::~Trainer() = default;

int Trainer::replicas() const { return impl_->options.replicas; }
int Trainer::shards() const { return impl_->options.shards; }
std::int64_t Trainer::steps() const { return impl_->steps; }
const TrainerOptions& Trainer::options() const { return impl_->options; }
const nn::Optimizer& Trainer::optimizer() const { return impl_->replica(0)->optimizer(); }

double Trainer::idle_seconds() const {
  double sum = 0;
  for (const auto& replica : impl_->replicas) {
    sum += replica->idle_seconds();
  }
  return sum / replicas();
}

void Trainer::group(std::string_view word, const nn::OptimizerOptions& options,
                    const nn::Schedule& schedule) {
  for (auto& replica : impl_->replicas) {
    replica->optimizer().group(word, options, schedule);
  }
}

StepResult Trainer::step(const Batch& batch, const LossFunction& loss) {
  if (batch.shards() != impl_->peers.shards().count) {
    throw InputError(
        "trainer: the batch has {} shards, expected {}; make the loader and the trainer with equal shards",
        batch.shards(), impl_->peers.shards().count);
  }
  impl_->check_images(batch);
  const std::shared_ptr<TravellingLosses> losses = impl_->step_losses.next();
  StepTask task{.batch = batch, .loss = loss, .valid = batch.valid(), .step = steps(), .losses = *losses};
  impl_->rehearse(task);
  const std::int64_t valid = task.valid = impl_->begin(batch.valid());
  task.step = steps();
  if (valid == 0) {  // all of its samples were bad
    if (impl_->options.lookahead) {
      impl_->together([&](int r) { impl_->replica(r)->lookahead()->after_step(steps() + 1); });
    }
    impl_->end_step();
    return {};
  }
  impl_->together([&](int r) { impl_->replica(r)->step(task); });
  impl_->end_step();
  if (impl_->peers.size() == 1) {
    return {.loss = StepLoss(losses), .valid = valid};
  }
  losses->wait();
  const std::vector<double> all = impl_->peers.all_shards(
      {losses->shards.data<double>(), static_cast<std::size_t>(losses->shards.numel())});
  return {.loss = tree_sum(std::span<const double>(all)), .valid = valid};
}

Evaluation Trainer::evaluate(Loader& loader, const ScoreFunction& score, const EvaluationOptions& options) {
  const LoaderOptions& loading = loader.options();
  if (impl_->peers.size() > 1 &&
      (loading.shards != shards() ||
       ShardRange{loading.first_shard, loading.local_shards} != impl_->peers.shards())) {
    throw InputError(
        "evaluate: the loader loads shards {} to {} of {}, expected those of this process, {} to {} of {}",
        loading.first_shard, loading.first_shard + loading.local_shards - 1, loading.shards,
        impl_->peers.shards().first, impl_->peers.shards().end() - 1, shards());
  }
  impl_->begin(0);
  const Impl::EvaluationMode mode(*impl_, options.confusion);
  Evaluation result;
  std::vector<double> losses(static_cast<std::size_t>(loading.local_shards));
  for (const Batch& batch : loader.epoch(0)) {
    impl_->losses.assign(static_cast<std::size_t>(pieces_of(batch)), 0);
    impl_->check_images(batch);
    const EvaluationTask task{.batch = batch, .score = score, .losses = impl_->losses};
    impl_->together([&](int r) { impl_->replica(r)->evaluate(task); });
    add_pieces(batch, impl_->losses, losses);
    if (options.stop && options.stop()) {
      break;
    }
  }
  losses = impl_->peers.all_shards(losses);
  result.loss = tree_sum(std::span<const double>(losses));
  ClassCounts counts(options.confusion);
  for (auto& replica : impl_->replicas) {
    counts.add(replica->counts());
  }
  counts.add_up(impl_->peers);
  counts.put_into(result);
  if (result.total > 0) {
    result.loss /= static_cast<double>(result.total);
  }
  return result;
}

void Trainer::finish() {
  impl_->begin(0);
  if (impl_->options.lookahead) {
    impl_->together([&](int r) { impl_->replica(r)->lookahead()->finish(); });
  }
}

nn::Module& Trainer::module() {
  impl_->forget_recorded();
  impl_->changed = replicas() * impl_->peers.size() > 1;
  return impl_->replica(0)->module();
}

TrainerState Trainer::state() const {
  const auto copied = [](nn::StateDict state) {
    for (auto& [name, tensor] : state) {
      tensor = tensor.device().is_cpu() ? tensor.clone() : tensor.to(kCpu);
    }
    return state;
  };
  Replica& replica = *impl_->replica(0);
  return {.steps = steps(),
          .weights = copied(nn::state_dict(replica.module())),
          .optimizer = copied(replica.optimizer_state()),
          .average = copied(replica.average()),
          .engines = impl_->options.devices[0].is_cuda() ? engine_choices().bytes() : ""};
}

void Trainer::restore(const TrainerState& state) {
  if (!state.engines.empty()) {
    engine_choices().import(state.engines);
    impl_->engines_restored = true;
  }
  impl_->changed = true;  // also where only a part of the state fits
  impl_->forget_recorded();
  Replica& replica = *impl_->replica(0);
  nn::load_state_dict(replica.module(), state.weights);
  nn::copy_by_name(replica.optimizer_state(), replica.optimizer().completed(state.optimizer),
                   "optimizer: this state does not fit");
  nn::copy_by_name(replica.average(), state.average, "trainer: this average of the weights does not fit");
  impl_->steps = state.steps;
}

std::string Trainer::weights_hash() { return nn::weights_hash(impl_->replica(0)->module()); }

}  // namespace millrace
