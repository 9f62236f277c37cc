#include "pipeline/training/checkpoint.h"

#include <csignal>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/resource.h>

#include "base/crc32c.h"
#include "nn/state.h"
#include "pipeline/training/checkpoint_state.h"
#include "tests/base/temporary_folder.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kShards = 4, kEpochs = 2;

/// A small run, which may be taken up by one with another number of replicas, threads and slabs.
struct SmallRun {
  explicit SmallRun(unsigned variant = 0,
                    nn::SgdOptions sgd = {.learning_rate = 0.05, .momentum = 0.9, .nesterov = true},
                    std::string transforms = "random_crop:4,horizontal_flip,normalize")
      : trainer{make_small_net, sgd, {.replicas = 1 << variant % 3, .shards = kShards, .seed = 5}},
        loader(open_dataset("synthetic:70"), {.batch_size = 16,
                                              .transforms = std::move(transforms),
                                              .tail = Tail::pad,
                                              .shards = kShards,
                                              .threads = 1 + static_cast<int>(variant % 2),
                                              .slabs = kShards + static_cast<int>(variant % 5),
                                              .seed = 3,
                                              .epochs = kEpochs}),
        description(describe_run(trainer, loader)) {}

  Checkpoint checkpoint() const { return {trainer.state(), loader.state(), description}; }

  /// Steps to the end, or until `after_step` says false.
  template <typename AfterStep>
  void go(AfterStep after_step) {
    for (std::int64_t epoch = loader.state().epoch; epoch < kEpochs; ++epoch) {
      for (const Batch& batch : loader.epoch(epoch)) {
        trainer.step(batch, sum_of_losses);
        if (!after_step()) {
          return;
        }
      }
    }
  }

  Trainer trainer;
  Loader loader;
  RunDescription description;
};

std::string undisturbed() {
  static const std::string hash = [] {
    SmallRun run;
    run.go([] { return true; });
    return run.trainer.weights_hash();
  }();
  return hash;
}

class CheckpointTest : public testing::Test {
 protected:
  /// A checkpoint after each of the first steps, all kept.
  void write_steps(int count) {
    SmallRun run;
    run.go([&] {
      save_checkpoint(folder_, run.checkpoint());
      return run.trainer.steps() < count;
    });
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::optional<FoundCheckpoint> newest() {
    said_.clear();
    return newest_checkpoint(folder_, say_);
  }

  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path("checkpoints");
  std::vector<std::string> said_;
  Say say_ = [this](const std::string& sentence) { said_.push_back(sentence); };

  CheckpointTest() { fs::create_directory(folder_); }
};

TEST_F(CheckpointTest, ComesBackAsItWas) {
  SmallRun run;
  run.go([&] { return run.trainer.steps() < 3; });
  Checkpoint written = run.checkpoint();
  written.metadata = {{"format", "pt"}, {"model", "small"}};
  const fs::path path = save_checkpoint(folder_, written);
  EXPECT_EQ(path, folder_ / "step-000000003");
  const Checkpoint read = load_checkpoint(path);
  EXPECT_EQ(read.trainer.steps, 3);
  EXPECT_EQ(read.loader, written.loader);
  EXPECT_EQ(read.run, written.run);
  EXPECT_EQ(read.metadata, written.metadata);
  SmallRun other(1);
  resume(read, other.description, other.trainer, other.loader, say_);
  EXPECT_EQ(other.trainer.weights_hash(), run.trainer.weights_hash());
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(CheckpointTest, ARunThatIsResumedAfterEachStepEndsWithTheSameBits) {
  unsigned variant = 0;
  for (bool done = false; !done; ++variant) {
    SmallRun run(variant);
    if (const auto found = newest()) {
      resume(found->checkpoint, run.description, run.trainer, run.loader, say_);
    }
    done = true;
    run.go([&] {
      save_checkpoint(folder_, run.checkpoint());
      return done = false;
    });
    if (done) {
      EXPECT_EQ(run.trainer.weights_hash(), undisturbed());
    }
  }
  EXPECT_EQ(variant, 11u) << "ten steps, and the end";
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(CheckpointTest, ResumingAtAnyStepGivesTheSameBits) {
  write_steps(10);
  for (unsigned step = 1; step <= 10; ++step) {
    SmallRun run(step);
    resume(load_checkpoint(folder_ / fmt::format("step-{:09}", step)), run.description, run.trainer,
           run.loader, say_);
    int steps = 0;
    run.go([&] { return ++steps > 0; });
    EXPECT_EQ(steps, 10 - static_cast<int>(step));
    EXPECT_EQ(run.trainer.weights_hash(), undisturbed()) << "from step " << step;
  }
}

/// Damages one file of the newest of two checkpoints; the one before must be found, and the file named.
TEST_F(CheckpointTest, DamageIsNamedAndTheLastGoodOneTaken) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 random(seed);
  write_steps(2);
  const fs::path damaged = folder_ / "step-000000002";
  for (const char* name : {"weights.safetensors", "optimizer.safetensors", "state.pb"}) {
    std::ifstream in(damaged / name, std::ios::binary);
    const std::string good{std::istreambuf_iterator<char>(in), {}};
    const auto expect_skipped = [&](const std::string& what) {
      const auto found = newest();
      ASSERT_TRUE(found.has_value()) << what;
      EXPECT_EQ(found->path.filename(), "step-000000001") << name << ": " << what;
      EXPECT_THAT(said_, ElementsAre(AllOf(HasSubstr(damaged.string()), HasSubstr(name)))) << what;
    };
    for (int i = 0; i < 20; ++i) {
      std::string bytes = good;
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
      std::ofstream(damaged / name, std::ios::binary) << bytes;
      expect_skipped("a flipped bit");
      std::ofstream(damaged / name, std::ios::binary) << good.substr(0, random() % good.size());
      expect_skipped("cut");
    }
    std::ofstream(damaged / name, std::ios::binary) << good << 'x';
    expect_skipped("longer");
    fs::remove(damaged / name);
    expect_skipped("missing");
    fs::create_directory(damaged / name);
    expect_skipped("a folder");
    fs::remove(damaged / name);
    std::ofstream(damaged / name, std::ios::binary) << good;
    EXPECT_EQ(newest()->path, damaged);
  }
}

TEST_F(CheckpointTest, FilesOfAnotherCheckpointAreDamage) {
  write_steps(2);
  fs::copy_file(folder_ / "step-000000001/optimizer.safetensors",
                folder_ / "step-000000002/optimizer.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_EQ(newest()->path.filename(), "step-000000001");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("optimizer.safetensors has the checksum")));
}

TEST_F(CheckpointTest, OneOfAnotherVersionIsNotPassedOver) {
  write_steps(2);
  const fs::path path = folder_ / "step-000000002/state.pb";
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  ASSERT_EQ(bytes[0], 8);  // field 1, a number
  bytes[1] = 99;
  const std::size_t checked = bytes.size() - 5;
  const std::uint32_t sum = crc32c(std::as_bytes(std::span(bytes).first(checked)));
  std::memcpy(bytes.data() + checked + 1, &sum, sizeof sum);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_THAT(
      test::input_error([&] { newest(); }),
      AllOf(HasSubstr("step-000000002"), HasSubstr("version 99"), HasSubstr("go on with the Millrace")));
}

TEST_F(CheckpointTest, NoneIsLeft) {
  EXPECT_FALSE(newest().has_value());
  EXPECT_FALSE(newest_checkpoint(folder_ / "no/such", say_).has_value());
  EXPECT_THAT(said_, IsEmpty());
  write_steps(1);
  fs::remove(folder_ / "step-000000001/state.pb");
  EXPECT_FALSE(newest().has_value());
  EXPECT_THAT(said_, ElementsAre(HasSubstr("state.pb")));
}

TEST_F(CheckpointTest, OtherOptionsAreAnErrorWithBothValues) {
  write_steps(1);
  const Checkpoint checkpoint = newest()->checkpoint;
  SmallRun other(0, {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}, "normalize");
  EXPECT_THAT(
      test::input_error([&] { resume(checkpoint, other.description, other.trainer, other.loader, say_); }),
      AllOf(HasSubstr("learning rate 0.05"), HasSubstr("learning rate 0.1"),
            HasSubstr("random_crop:4,horizontal_flip,normalize in the checkpoint, normalize now")));
  EXPECT_EQ(other.trainer.steps(), 0);
}

TEST_F(CheckpointTest, OptimizersOfUnknownKindsAreRefused) {
  write_steps(1);
  Checkpoint checkpoint = newest()->checkpoint;
  SmallRun run;
  const std::string described = checkpoint.run.options.at("optimizer");
  for (const char* const later : {"Lion, learning rate 0.1", "Lion"}) {
    checkpoint.run.options["optimizer"] = described + " of a.weight to a.bias; " + later;
    EXPECT_THAT(
        test::input_error([&] { resume(checkpoint, run.description, run.trainer, run.loader, say_); }),
        HasSubstr("resume: the checkpoint's optimizer: got the kind 'Lion', expected one of SGD, Adam, "
                  "AdamW, RMSProp, Muon; choose one of these, or go on with the Millrace that wrote "
                  "it"));
  }
  EXPECT_EQ(run.trainer.steps(), 0);
}

TEST_F(CheckpointTest, AnotherMachineIsAWarning) {
  write_steps(1);
  Checkpoint checkpoint = newest()->checkpoint;
  checkpoint.run.environment["processor"] = "Z80";
  SmallRun run;
  resume(checkpoint, run.description, run.trainer, run.loader, say_);
  EXPECT_THAT(
      said_, ElementsAre(AllOf(HasSubstr("bits may differ"), HasSubstr("processor: Z80 in the checkpoint"))));
  EXPECT_EQ(run.trainer.steps(), 1);
}

TEST_F(CheckpointTest, ACheckpointerKeepsTheLast) {
  SmallRun run;
  {
    Checkpointer checkpointer(
        {.folder = folder_, .every = {.steps = 2}, .keep = 2, .run = run.description, .say = say_});
    run.go([&] {
      checkpointer.after_step(run.trainer, run.loader);
      if (run.trainer.steps() % 2 == 0) {
        // Waits for the one in the background.
        EXPECT_EQ(checkpointer.save(run.trainer, run.loader).filename(),
                  fmt::format("step-{:09}", run.trainer.steps()));
      }
      return run.trainer.steps() < 9;
    });
  }
  EXPECT_THAT(names(), ElementsAre("step-000000006", "step-000000008"));
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(CheckpointTest, IntervalsAreOfStepsEpochsAndTime) {
  const auto written = [&](CheckpointInterval every) {
    fs::remove_all(folder_);
    SmallRun run;
    std::vector<std::int64_t> steps;
    Checkpointer checkpointer({.folder = folder_, .every = every, .keep = 99, .run = run.description});
    run.go([&] {
      checkpointer.after_step(run.trainer, run.loader);
      return true;
    });
    checkpointer.save(run.trainer, run.loader);
    return names();
  };
  EXPECT_THAT(written({.epochs = 1}), ElementsAre("step-000000005", "step-000000010"));
  EXPECT_THAT(written({.epochs = 3}), ElementsAre("step-000000010")) << "the one at the end";
  EXPECT_THAT(written({.seconds = 1e5}), ElementsAre("step-000000010"));
  EXPECT_GT(written({.seconds = 1e-9}).size(), 1u);
}

TEST_F(CheckpointTest, IntervalsHaveWords) {
  EXPECT_EQ(CheckpointInterval::parse("30s").seconds, 30);
  EXPECT_EQ(CheckpointInterval::parse("500steps").steps, 500);
  EXPECT_EQ(CheckpointInterval::parse("1epoch").epochs, 1);
  EXPECT_EQ(CheckpointInterval::parse("2epochs").epochs, 2);
  for (const char* text :
       {"", "s", "30", "0s", "-1steps", "1.5s", "3 steps", "9999999999999999999s", "5stepss"}) {
    EXPECT_THAT(test::input_error([&] { CheckpointInterval::parse(text); }),
                AllOf(HasSubstr(fmt::format("'{}'", text)), HasSubstr("500steps")));
  }
}

/// A limit on the size of files stands in for a full disk.
class FileLimit {
 public:
  FileLimit() {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{1000, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(CheckpointTest, AFullDiskLeavesTheLastGoodOneAndTrainingGoesOn) {
  SmallRun run;
  Checkpointer checkpointer(
      {.folder = folder_, .every = {.steps = 1}, .keep = 1, .run = run.description, .say = say_});
  run.go([&] { return run.trainer.steps() < 1; });
  checkpointer.save(run.trainer, run.loader);
  {
    const FileLimit full;
    run.go([&] {
      checkpointer.after_step(run.trainer, run.loader);
      return run.trainer.steps() < 6;
    });
    EXPECT_THROW(checkpointer.save(run.trainer, run.loader), MachineError);
    EXPECT_THAT(names(), ElementsAre("step-000000001"));
  }
  ASSERT_FALSE(said_.empty());
  EXPECT_THAT(said_[0], AllOf(HasSubstr("no checkpoint of step 2"), HasSubstr("weights.safetensors"),
                              HasSubstr("step-000000001 is the last good one")));
  EXPECT_EQ(checkpointer.save(run.trainer, run.loader).filename(), "step-000000006") << "there is room again";
  EXPECT_THAT(names(), ElementsAre("step-000000006"));
  EXPECT_EQ(newest()->checkpoint.trainer.steps, 6);
}

TEST_F(CheckpointTest, WhatAKilledRunLeftIsPassedOverAndRemoved) {
  write_steps(1);
  fs::create_directory(folder_ / "step-000000002.part");
  fs::copy_file(folder_ / "step-000000001/weights.safetensors",
                folder_ / "step-000000002.part/weights.safetensors");
  EXPECT_EQ(newest()->path.filename(), "step-000000001");
  fs::create_directory(folder_ / "step-000000007.removed");
  fs::create_directory(folder_ / "mine.part");
  const Checkpointer checkpointer({.folder = folder_});
  EXPECT_THAT(names(), ElementsAre("mine.part", "step-000000001"));
}

/// Killed before the new one had the name of the old one, and after.
TEST_F(CheckpointTest, OneThatWasToBeReplacedComesBackUnlessItWas) {
  write_steps(2);
  fs::rename(folder_ / "step-000000002", folder_ / "step-000000002.replaced");
  fs::create_directory(folder_ / "step-000000002.part");
  fs::create_directory(folder_ / "step-000000001.replaced");
  EXPECT_EQ(newest()->path.filename(), "step-000000002.replaced") << "of whoever only reads the folder";
  const Checkpointer checkpointer({.folder = folder_});
  EXPECT_THAT(names(), ElementsAre("step-000000001", "step-000000002"));
  EXPECT_EQ(newest()->path.filename(), "step-000000002");
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(CheckpointTest, OneThatWasReplacedComesBackWhereTheNewOneIsDamaged) {
  write_steps(2);
  fs::copy(folder_ / "step-000000002", folder_ / "step-000000002.replaced");
  fs::remove(folder_ / "step-000000002/state.pb");
  EXPECT_EQ(newest()->path.filename(), "step-000000002.replaced");
  EXPECT_THAT(said_, ElementsAre(HasSubstr("step-000000002 is no whole checkpoint")));
  const Checkpointer checkpointer({.folder = folder_});
  EXPECT_THAT(names(), ElementsAre("step-000000001", "step-000000002"));
  EXPECT_EQ(newest()->path.filename(), "step-000000002");
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(CheckpointTest, ADamagedOneOfTheSameStepIsReplaced) {
  write_steps(2);
  fs::remove(folder_ / "step-000000002/state.pb");
  SmallRun run;
  resume(newest()->checkpoint, run.description, run.trainer, run.loader, say_);
  run.go([&] { return false; });
  save_checkpoint(folder_, run.checkpoint());
  EXPECT_EQ(newest()->path.filename(), "step-000000002");
  EXPECT_THAT(names(), ElementsAre("step-000000001", "step-000000002"));
}

TEST_F(CheckpointTest, FoldersThatCannotBeUsedAreRefused) {
  const auto refusal = [](const fs::path& folder) {
    return test::input_error([&] { const Checkpointer checkpointer({.folder = folder}); });
  };
  temporary_.write("file", "x");
  EXPECT_THAT(refusal(temporary_.path("file")), HasSubstr("file"));
  EXPECT_THAT(refusal("/proc/checkpoints"), HasSubstr("/proc/checkpoints"));
  const Checkpointer first({.folder = folder_});
  EXPECT_THAT(refusal(folder_), HasSubstr("another run"));
  EXPECT_THAT(test::input_error([&] { const Checkpointer none({.folder = folder_, .keep = 0}); }),
              HasSubstr("0 to keep"));
}

/// A run on CIFAR-10's files with 4 pictures each, whose pixels are `pixel` and more.
struct CifarRun {
  CifarRun(const test::TemporaryFolder& folder, const std::string& name, char pixel)
      : trainer{make_small_net, nn::SgdOptions{.learning_rate = 0.05}, {.shards = 2, .seed = 5}},
        loader(open(folder, name, pixel),
               {.batch_size = 4, .transforms = "normalize", .shards = 2, .threads = 1, .seed = 3}) {}

  static std::shared_ptr<const Dataset> open(const test::TemporaryFolder& folder, const std::string& name,
                                             char pixel) {
    for (char i = 1; i <= 5; ++i) {
      std::string bytes;
      for (char k = 0; k < 4; ++k) {
        bytes += k + std::string(3072, static_cast<char>(pixel + 10 * i + k));
      }
      folder.write(name + "/data_batch_" + std::to_string(i) + ".bin", bytes);
    }
    return open_dataset("cifar10:" + folder.path(name));
  }
  /// As in the checkpoint, whatever further options there are by now, on this run's data.
  RunDescription description(const Checkpoint& from) const {
    RunDescription run = from.run;
    run.options.at("data") = describe_data(loader.state());
    return run;
  }

  Trainer trainer;
  Loader loader;
};

TEST_F(CheckpointTest, OneOfTheFormatBeforeIsCheckedByItsOwnFingerprint) {
  const Checkpoint old = load_checkpoint(MILLRACE_TEST_FILES "/format-3/step-000000002");
  EXPECT_EQ(old.loader.fingerprint_version, 1);
  const auto go_on = [&](const Checkpoint& from, CifarRun run) {
    const std::string refused = test::input_error(
        [&] { resume(from, run.description(from), run.trainer, run.loader, [](const std::string&) {}); });
    if (refused == "(no error)") {
      EXPECT_EQ(run.trainer.steps(), 2);
      EXPECT_EQ(run.loader.state().step, 2);
      save_checkpoint(folder_, {run.trainer.state(), run.loader.state(), run.description(from)});
    }
    return refused;
  };
  temporary_.write("renamed/batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
  EXPECT_THAT(go_on(old, {temporary_, "renamed", 0}),
              AllOf(HasSubstr("data: 20 samples 991cb7b5552b94d6 in the checkpoint, 20 samples")))
      << "the classes' names are all that the first fingerprint covers beside the size";
  EXPECT_EQ(go_on(old, {temporary_, "cifar", 0}), "(no error)");

  const Checkpoint written = load_checkpoint(folder_ / "step-000000002");
  EXPECT_EQ(written.loader.fingerprint_version, 2);
  EXPECT_EQ(go_on(written, {temporary_, "elsewhere", 0}), "(no error)");
  EXPECT_EQ(go_on(written, {temporary_, "renamed", 0}), "(no error)");
  EXPECT_THAT(go_on(written, {temporary_, "other", 1}), HasSubstr("data: 20 samples"));
}

TEST(CheckpointState, RefusesBytesThatAreNone) {
  CheckpointState state{.step = 7, .run = {{{"shards", "4"}}, {{"name \xff", "value \xff"}}}};
  state.files = {{"weights.safetensors", 9, 0x1234}};
  state.engines = "a key\t7\n";
  const std::string bytes = state.to_bytes();
  const CheckpointState read = CheckpointState::from_bytes(std::as_bytes(std::span(bytes)));
  EXPECT_EQ(read.step, 7);
  EXPECT_EQ(read.run, state.run);
  EXPECT_EQ(read.files, state.files);
  EXPECT_EQ(read.engines, state.engines);
  for (const std::string& wrong : {std::string(), std::string("1234"), bytes + "x", bytes.substr(1)}) {
    EXPECT_THAT(test::input_error([&] { CheckpointState::from_bytes(std::as_bytes(std::span(wrong))); }),
                HasSubstr("it"));
  }
  state.step = -1;
  const std::string negative = state.to_bytes();
  EXPECT_THAT(test::input_error([&] { CheckpointState::from_bytes(std::as_bytes(std::span(negative))); }),
              HasSubstr("step -1"));
}

}  // namespace
}  // namespace millrace
