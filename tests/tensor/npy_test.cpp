#include "tensor/npy.h"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Npy : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "millrace_npy_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// A version 1 file as NumPy writes it.
  std::filesystem::path file(const std::string& dictionary, const std::string& numbers) const {
    std::string text = dictionary;
    text.append(117 - text.size(), ' ');
    text += '\n';
    const std::filesystem::path path = folder_ / "file.npy";
    std::ofstream(path, std::ios::binary)
        << "\x93NUMPY" << '\1' << '\0' << static_cast<char>(text.size()) << '\0' << text << numbers;
    return path;
  }

  std::filesystem::path folder_;
};

TEST_F(Npy, KeepsEveryTypeAndShape) {
  auto engine = test::random_engine();
  for (DType dtype : {DType::f32, DType::f64, DType::f16, DType::u8, DType::i32, DType::i64}) {
    for (const Shape& shape :
         {Shape{}, Shape{3}, Shape{2, 3, 4}, Shape{0, 5}, Shape{1, 1, 1, 1, 1, 1, 1, 2}}) {
      const Tensor x = test::sample(shape, dtype, engine);
      save_npy(folder_ / "x.npy", x);
      const Tensor y = load_npy(folder_ / "x.npy");
      ASSERT_EQ(y.dtype(), dtype);
      ASSERT_EQ(y.shape(), shape);
      ASSERT_EQ(test::values(y), test::values(x));
    }
  }
  save_npy(folder_ / "x.npy", tensor({{1, 2}, {3, 4}}).t());
  EXPECT_THAT(test::values(load_npy(folder_ / "x.npy")), ::testing::ElementsAre(1, 3, 2, 4));
}

TEST_F(Npy, WritesWhatNumPyWrites) {
  save_npy(folder_ / "x.npy", tensor({1, 2}, {.dtype = DType::i32}));
  std::ifstream in(folder_ / "x.npy", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  ASSERT_EQ(bytes.size(), 128u + 8u);
  EXPECT_EQ(bytes.substr(0, 10), std::string("\x93NUMPY\1\0v\0", 10));
  EXPECT_THAT(bytes, HasSubstr("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }  "));
  EXPECT_EQ(bytes[127], '\n');
  EXPECT_EQ(bytes.substr(128), std::string("\1\0\0\0\2\0\0\0", 8));
}

TEST_F(Npy, ReadsFortranOrder) {
  const auto path =
      file("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", std::string("\1\4\2\5\3\6", 6));
  const Tensor x = load_npy(path);
  EXPECT_THAT(test::values(x), ::testing::ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_TRUE(x.is_contiguous());
}

TEST_F(Npy, SaysWhatIsWrongWithAFile) {
  const auto error = [&](const std::string& dictionary, const std::string& numbers) {
    const auto path = file(dictionary, numbers);
    return test::input_error([&] { load_npy(path); });
  };
  const std::string good = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
  EXPECT_EQ(error(good, "123456"), "(no error)");
  EXPECT_THAT(error(good, "12345"), AllOf(HasSubstr("file.npy"), HasSubstr("5 bytes"), HasSubstr("[2, 3]")));
  EXPECT_THAT(error(good, "1234567"), HasSubstr("7 bytes"));
  EXPECT_THAT(error("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "1234"), HasSubstr("'>f4'"));
  EXPECT_THAT(error("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "12345678"),
              HasSubstr("'<c8'"));
  EXPECT_THAT(error("{'descr': '<f4', 'shape': (1,), }", "1234"), HasSubstr("fortran_order"));
  EXPECT_THAT(error("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,), }", "1234"),
              HasSubstr("fortran_order"));
  EXPECT_THAT(error("{'descr': '<f4', 'fortran_order': False, 'shape': (x,), }", "1234"), HasSubstr("shape"));
  EXPECT_THAT(error("{'descr': '<f4', 'fortran_order': False, 'shape': (1, ", "1234"), HasSubstr("shape"));
  EXPECT_THAT(error("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "1234"),
              HasSubstr("8"));
  EXPECT_THAT(error("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", ""),
              HasSubstr("counted"));
  std::ofstream(folder_ / "text.npy") << "hello, this is not numbers";
  EXPECT_THAT(test::input_error([&] { load_npy(folder_ / "text.npy"); }), HasSubstr("text.npy"));
  std::ofstream(folder_ / "cut.npy", std::ios::binary) << std::string("\x93NUMPY\1\0v\0{'des", 15);
  EXPECT_THAT(test::input_error([&] { load_npy(folder_ / "cut.npy"); }), HasSubstr("header"));
  EXPECT_THAT(test::input_error([&] { load_npy(folder_ / "none.npy"); }), HasSubstr("No such file"));
  EXPECT_THAT(test::input_error([&] { save_npy(folder_ / "b.npy", ones({1}, {.dtype = DType::bf16})); }),
              HasSubstr("bf16"));
}

TEST_F(Npy, FailureLeavesTheOldFile) {
  save_npy(folder_ / "x.npy", ones({2}));
  EXPECT_THROW(save_npy(folder_ / "missing" / "x.npy", ones({2})), MachineError);
  std::filesystem::create_directory(folder_ / "taken.npy");
  std::ofstream(folder_ / "taken.npy" / "inside") << "x";
  EXPECT_THROW(save_npy(folder_ / "taken.npy", ones({2})), MachineError);
  EXPECT_EQ(load_npy(folder_ / "x.npy").at({1}), 1);
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_THAT(entry.path().string(), ::testing::Not(HasSubstr(".tmp")));
  }
}

}  // namespace
}  // namespace millrace
