#include "nn/state.h"

#include <bit>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "nn/layers/linear.h"
#include "nn/models/models.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class State : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              fmt::format("millrace-{}-{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
    path_ = folder_ / "weights.safetensors";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  /// A file of this header and data.
  void write(const std::string& header, const std::string& data) const {
    std::uint64_t length = header.size();
    write(std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  }
  std::string load_error() const {
    try {
      nn::load_safetensors(path_);
    } catch (const InputError& error) {
      return error.what();
    }
    return "nothing thrown";
  }

  fs::path folder_, path_;
};

std::string raw(std::initializer_list<float> numbers) {
  return {reinterpret_cast<const char*>(std::data(numbers)), numbers.size() * sizeof(float)};
}

TEST_F(State, AStateDictionaryIsAViewOfTheModule) {
  nn::Linear layer(2, 3);
  nn::StateDict state = nn::state_dict(layer);
  ASSERT_EQ(state.size(), 2u);
  EXPECT_EQ(state[0].first, "weight");
  state[0].second.fill_(5);
  EXPECT_EQ(layer.weight.data().at({2, 1}), 5);
}

TEST_F(State, LoadingNamesEveryMisfit) {
  nn::Linear layer(2, 3);
  const Tensor before = layer.weight.data().clone();
  try {
    nn::load_state_dict(layer, {{"weight", zeros({3, 3})}, {"extra", zeros({1})}});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "load_state_dict: these weights do not fit Linear; missing: bias; unexpected: extra; wrongly shaped: "
        "weight is [3, 3], expected [3, 2]");
  }
  EXPECT_TRUE(all_close(layer.weight.data(), before, 0, 0));
}

TEST_F(State, SafetensorsRoundTripKeepsEveryTypeAndTheHash) {
  nn::manual_seed(3);
  const auto net = nn::make_model("resnet20");
  Generator generator(1);
  (*net)(randn({2, 3, 32, 32}, generator));  // running statistics are part of it
  nn::SafetensorsFile file{nn::state_dict(*net), {{"model", "resnet20"}, {"classes", "a\"b,\n\xc3\xa9"}}};
  nn::save_safetensors(path_, file);
  const nn::SafetensorsFile back = nn::load_safetensors(path_);
  EXPECT_EQ(back.metadata, file.metadata);
  nn::manual_seed(4);
  const auto other = nn::make_model("resnet20");
  EXPECT_NE(nn::weights_hash(*other), nn::weights_hash(*net));
  nn::load_state_dict(*other, back.tensors);
  EXPECT_EQ(nn::weights_hash(*other), nn::weights_hash(*net));
  EXPECT_EQ(fs::hard_link_count(path_), 1u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);

  nn::StateDict types;
  for (const DType dtype :
       {DType::f32, DType::f64, DType::f16, DType::bf16, DType::u8, DType::i32, DType::i64}) {
    types.emplace_back(std::string(name_of(dtype)), arange(0, 6, 1, {.dtype = dtype}).view({2, 3}));
  }
  types.emplace_back("scalar", full({}, 2.5));
  types.emplace_back("nothing", empty({0, 4}));
  types.emplace_back("strided", arange(0, 6).view({2, 3}).t());
  nn::save_safetensors(path_, {types, {}});
  const nn::StateDict read = nn::load_safetensors(path_).tensors;
  ASSERT_EQ(read.size(), types.size());
  for (const auto& [name, tensor] : types) {
    const auto found =
        std::find_if(read.begin(), read.end(), [&](const auto& entry) { return entry.first == name; });
    ASSERT_NE(found, read.end()) << name;
    EXPECT_EQ(found->second.dtype(), tensor.dtype()) << name;
    EXPECT_EQ(found->second.shape(), tensor.shape()) << name;
    EXPECT_TRUE(all_close(found->second.to(DType::f64), tensor.to(DType::f64), 0, 0)) << name;
  }
}

/// What Python's safetensors writes for {"b": i64 scalar 7, "a": f32 [1, 2]} with metadata.
TEST_F(State, TheLayoutIsTheReferenceOne) {
  nn::save_safetensors(path_,
                       {{{"a", tensor({1, 2})}, {"b", full({}, 7, {.dtype = DType::i64})}}, {{"k", "v"}}});
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = padded.size();
  const std::int64_t seven = 7;
  EXPECT_EQ(bytes(), std::string(reinterpret_cast<const char*>(&length), 8) + padded +
                         std::string(reinterpret_cast<const char*>(&seven), 8) + raw({1, 2}));
}

TEST_F(State, DamagedFilesAreNamed) {
  EXPECT_THAT(load_error(), AllOf(HasSubstr("cannot read"), HasSubstr("weights.safetensors")));
  const std::string entry = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  write("{" + entry + "}", raw({1, 2}));
  EXPECT_EQ(load_error(), "nothing thrown");

  const auto expect = [&](const std::string& what) {
    EXPECT_THAT(load_error(),
                AllOf(HasSubstr("weights.safetensors is no valid safetensors file"), HasSubstr(what)));
  };
  write("abc");
  expect("it has 3 bytes, expected at least 8");
  write("{" + entry + "}", raw({1, 2}));
  write(bytes().substr(0, 20));
  expect("but only 12 follow");
  write(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + "{}");
  expect("its header claims 9223372036854775807 bytes");
  write("[1]", "");
  expect("its header is not a JSON object");
  write("{" + entry, raw({1, 2}));
  expect("its header is not a JSON object");
  write(R"({"__metadata__":{"k":1}})", "");
  expect("its metadata \"k\" is not a string");
  write("{" + entry + "}", raw({1}));
  expect("tensor \"a\" lies at bytes 0 to 8 of 4");
  write("{" + entry + "}", raw({1, 2, 3}));
  expect("its tensors end at byte 8 of 12");
  write("{" + entry + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", raw({1, 2, 3}));
  expect("tensor \"b\" starts at byte 4, expected 8");
  write("{" + entry + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", raw({1, 2, 3, 4}));
  expect("tensor \"b\" starts at byte 12, expected 8");
  for (const char* bad : {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})",
                          R"({"dtype":"F64","shape":[2],"data_offsets":[0,8]})",
                          R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]})"}) {
    write(std::string(R"({"a":)") + bad + "}", raw({1, 2}));
    expect("has 8 bytes");
  }
  write(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", raw({1, 2}));
  expect("tensor \"a\" has the type Q4, which is not supported");
  for (const char* bad :
       {R"({"shape":[2],"data_offsets":[0,8]})", R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})",
        R"({"dtype":"F32","shape":[2],"data_offsets":[0]})", R"(7)",
        R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"}) {
    write(std::string(R"({"a":)") + bad + "}", raw({1, 2}));
    expect("lacks a dtype, a shape or two data_offsets");
  }
  write(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", raw({1}));
  expect("more than 8 dimensions");
  write(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", raw({1, 2}));
  expect("tensor \"a\" lies at bytes 8 to 0 of 8");
}

TEST_F(State, AFullDiskLeavesTheOldFile) {
  nn::save_safetensors(path_, {{{"a", tensor({1, 2})}}, {}});
  const std::string before = bytes();
  rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit small{4096, old.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    nn::save_safetensors(path_, {{{"a", zeros({4096})}}, {}});
  } catch (const MachineError& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  EXPECT_THAT(message, AllOf(HasSubstr("cannot write"), HasSubstr("weights.safetensors"),
                             HasSubstr("File too large")));
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(State, UnwritablePlacesAreNamed) {
  const nn::SafetensorsFile file{{{"a", tensor({1, 2})}}, {}};
  EXPECT_THROW(nn::save_safetensors(folder_ / "missing" / "w", file), MachineError);
  EXPECT_THROW(nn::save_safetensors(folder_, file), MachineError);
  EXPECT_THROW(nn::save_safetensors("/dev/full", file), MachineError);
  EXPECT_THROW(nn::save_safetensors(path_, {{{"a", ones({1})}, {"a", ones({1})}}, {}}), InputError);
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(State, SavesThroughALink) {
  fs::create_symlink("real", path_);
  write("old");
  nn::save_safetensors(path_, {{{"a", tensor({1, 2})}}, {}});
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_EQ(nn::load_safetensors(folder_ / "real").tensors.size(), 1u);
}

/// Frozen: sha256 of "bias f32 [2]\n", two floats, "weight f32 [2, 1]\n", two floats, made with Python's
/// hashlib.
TEST_F(State, TheHashIsWhatItsDescriptionSays) {
  nn::Linear layer(1, 2);
  layer.weight.data().copy_(arange(1, 3).view({2, 1}));
  layer.bias.data().copy_(tensor({0.5, -3}));
  EXPECT_EQ(nn::weights_hash(layer), "74c6b7db92d785131237452cc272ad81935b4128ef7fff142043ad8808d3d85c");
}

}  // namespace
}  // namespace millrace
