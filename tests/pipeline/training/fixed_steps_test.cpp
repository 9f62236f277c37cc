#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <sstream>
#include <string>

#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

/// What the bits depend on besides the code: the processor, the instructions this build may use, the
/// compiler.
std::string processor() {
  std::map<std::string, std::string> fields;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) {
      continue;
    }
    const std::string name = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    fields[name] = colon + 2 < line.size() ? line.substr(colon + 2) : "";
  }
  std::string kind = fields["vendor_id"] + "-" + fields["cpu family"] + "-" + fields["model"];
#if defined(__AVX512BF16__)
  kind += "-avx512bf16";
#elif defined(__AVX512F__)
  kind += "-avx512";
#elif defined(__AVX2__)
  kind += "-avx2";
#endif
  return kind + "-gcc" + std::to_string(__GNUC__);
}

bool build_has_other_bits() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
  return true;
#else
  return false;
#endif
}

/// The hash that stands for this model on this processor, "" when none does.
std::string expected_hash(const std::string& model) {
  std::ifstream file(MILLRACE_TEST_FILES "/fixed_steps.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind, name, hash;
    if (words >> kind >> name >> hash && kind == processor() && name == model) {
      return hash;
    }
  }
  return "";
}

/// The weights after 20 steps on synthetic images.
std::string trained_hash(const std::string& model, DType dtype) {
  Loader loader(open_dataset("synthetic:320"), {.batch_size = 16,
                                                .transforms = "random_crop:4,horizontal_flip,normalize",
                                                .dtype = dtype,
                                                .shards = 4,
                                                .threads = 1});
  Trainer trainer{
      [&] { return nn::make_model(model); },
      nn::SgdOptions{.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true},
      {.replicas = 2, .shards = 4, .dtype = dtype}};
  for (const Batch& batch : loader.epoch(0)) {
    trainer.step(batch, sum_of_losses);
  }
  EXPECT_EQ(trainer.steps(), 20);
  return trainer.weights_hash();
}

/// A commit that changes these bits says so, and puts the new line below into files/fixed_steps.txt.
void check(const std::string& model, DType dtype) {
  if (build_has_other_bits()) {
    GTEST_SKIP() << "sanitizers and unoptimized builds have bits of their own";
  }
  const std::string hash = trained_hash(model, dtype), expected = expected_hash(model);
  const std::string line = processor() + " " + model + " " + hash;
  if (expected.empty()) {
    GTEST_SKIP() << "no hash for this processor; if the build is trusted, add: " << line;
  }
  EXPECT_EQ(hash, expected) << "if the change of bits is meant, replace by: " << line;
}

TEST(TwentyFixedSteps, GiveTheSameWeightsInF32) { check("lenet5", DType::f32); }
TEST(TwentyFixedSteps, GiveTheSameWeightsInBf16) { check("resnet20", DType::bf16); }

}  // namespace
}  // namespace millrace
