#include <random>

#include "dataio/dataset.h"
#include "dataio/formats/pickle.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

using test::input_error;
using test::little_endian;
using test::open_error;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::string_literals;

// Pickles as Python 2's cPickle writes the official files
// -----------------------------------------------------------------------------------------------------------

std::string pickled(const std::string& text) {
  return (text.size() < 256 ? "U" + little_endian(text.size(), 1) : "T" + little_endian(text.size(), 4)) +
         text;
}

template <typename T>
std::string pickled_list(const std::vector<T>& values) {
  std::string bytes = "]q\x05(";
  for (const T& value : values) {
    if constexpr (std::is_integral_v<T>) {
      bytes += "K" + little_endian(static_cast<std::uint64_t>(value), 1);
    } else {
      bytes += pickled(value) + "r" + little_endian(300, 4);
    }
  }
  return bytes + "e";
}

std::string pickled_array(std::size_t rows, std::size_t columns, const std::string& bytes) {
  const auto size = [](std::size_t value) { return "M" + little_endian(value, 2); };
  return std::string("cnumpy.core.multiarray\n_reconstruct\nq\x06") + "cnumpy\nndarray\nq\x07" +
         "K\x00\x85q\x08"s +
         "U\x01"
         "bq\x09\x87q\x0aRq\x0b(K\x01" +
         size(rows) + size(columns) +
         "\x86q\x0c"
         "cnumpy\ndtype\nq\x0dU\x02u1q\x0e" +
         "K\x00K\x01\x87q\x0fRq\x10(K\x03U\x01|q\x11"s + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" +
         std::string(
             "K\x00tq\x12"
             "b\x89",
             7) +
         pickled(bytes) +
         "q\x13tq\x14"
         "b";
}

std::string pickled_dictionary(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string bytes = "\x80\x02}q\x01(";
  for (const auto& [key, value] : entries) {
    bytes += pickled(key) + "q\x02" + value;
  }
  return bytes + "u.";
}

std::string batch(const std::vector<int>& labels, char pixel, const std::string& labels_key = "labels") {
  std::string pixels;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    pixels += std::string(3072, static_cast<char>(pixel + static_cast<char>(i)));
  }
  return pickled_dictionary({{"batch_label", pickled("training batch 1 of 5")},
                             {labels_key, pickled_list(labels)},
                             {"data", pickled_array(labels.size(), 3072, pixels)},
                             {"filenames", pickled_list<std::string>({"a.png", "b.png"})}});
}

const std::vector<std::string> kTen = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};

TEST(CifarPickles, Cifar10IsReadWithoutPython) {
  for (const std::string prefix : {"", "cifar-10-batches-py/"}) {
    TemporaryFolder folder;
    for (int i = 1; i <= 5; ++i) {
      folder.write(prefix + "data_batch_" + std::to_string(i), batch({i, 9}, static_cast<char>(10 * i)));
    }
    folder.write(prefix + "test_batch", batch({3}, 'x'));
    for (const Reading reading : {Reading::map, Reading::read}) {
      const auto train = open_dataset("cifar10:" + folder.path(), {.reading = reading});
      ASSERT_EQ(train->size(), 10);
      EXPECT_EQ(train->info().classes[9], "truck");
      std::vector<std::byte> scratch;
      const Sample sample = train->read(7, scratch);
      EXPECT_EQ(sample.label, 9);
      EXPECT_EQ(sample.encoding, Encoding::raw_chw);
      EXPECT_EQ(text(sample.bytes), std::string(3072, 41));
      EXPECT_EQ(train->label(6), 4);
      EXPECT_THAT(train->describe(7), testing::EndsWith("data_batch_4, record 1"));
    }
    folder.write(prefix + "batches.meta", pickled_dictionary({{"num_cases_per_batch", "M\x10\x27"},
                                                              {"label_names", pickled_list(kTen)}}));
    const auto test = open_dataset("cifar10:" + folder.path(), {.train = false});
    EXPECT_EQ(test->size(), 1);
    EXPECT_EQ(test->info().classes, kTen);
  }
}

TEST(CifarPickles, Cifar100HasFineAndCoarseLabels) {
  TemporaryFolder folder;
  const std::string pixels(2 * 3072, 'p');
  folder.write("cifar-100-python/train",
               pickled_dictionary({{"filenames", pickled_list<std::string>({"a", "b"})},
                                   {"fine_labels", pickled_list<int>({99, 7})},
                                   {"coarse_labels", pickled_list<int>({19, 3})},
                                   {"data", pickled_array(2, 3072, pixels)}}));
  const auto fine = open_dataset("cifar100:" + folder.path());
  EXPECT_EQ(fine->size(), 2);
  EXPECT_EQ(fine->info().classes.size(), 100u);
  EXPECT_EQ(fine->label(0), 99);
  const auto coarse = open_dataset("cifar100:" + folder.path() + ",labels=coarse");
  EXPECT_EQ(coarse->info().classes.size(), 20u);
  EXPECT_EQ(coarse->label(0), 19);
  EXPECT_THAT(open_error("cifar100:" + folder.path() + ",labels=all"), HasSubstr("fine or coarse"));
}

TEST(Cifar100, ReadsTheBinaryFiles) {
  TemporaryFolder folder;
  const auto record = [](char coarse, char fine, char pixel) {
    return std::string{coarse, fine} + std::string(3072, pixel);
  };
  folder.write("cifar-100-binary/train.bin", record(19, 99, 'a') + record(3, 7, 'b') + record(20, 100, 'c'));
  folder.write("cifar-100-binary/test.bin", record(1, 2, 'd'));
  std::string names;
  for (int i = 0; i < 100; ++i) {
    names += "fine" + std::to_string(i) + "\n";
  }
  folder.write("cifar-100-binary/fine_label_names.txt", names);
  const auto fine = open_dataset("cifar100:" + folder.path());
  EXPECT_EQ(fine->info().classes[99], "fine99");
  std::vector<std::byte> scratch;
  EXPECT_EQ(text(fine->read(1, scratch).bytes), std::string(3072, 'b'));
  EXPECT_EQ(fine->label(0), 99);
  EXPECT_EQ(open_dataset("cifar100:" + folder.path() + ",labels=coarse", {.train = false})->label(0), 1);
  EXPECT_THAT(input_error([&] { fine->label(2); }),
              AllOf(HasSubstr("train.bin, record 2"), HasSubstr("label 100")));
  folder.write("cifar-100-binary/test.bin", std::string(3000, 'x'));
  EXPECT_THAT(
      input_error([&] { open_dataset("cifar100:" + folder.path(), {.train = false}); }),
      AllOf(HasSubstr("test.bin has 3000 bytes"), HasSubstr("multiple of 3074"), HasSubstr("30740000")));
}

TEST(CifarPickles, HaveTheFingerprintOfTheBinaryFiles) {
  TemporaryFolder folder;
  for (int i = 1; i <= 5; ++i) {
    const char pixel = static_cast<char>(10 * i);
    const std::string name = "data_batch_" + std::to_string(i);
    folder.write("python/" + name, batch({i, 9}, pixel));
    folder.write("binary/" + name + ".bin", static_cast<char>(i) + std::string(3072, pixel) + "\x09" +
                                                std::string(3072, static_cast<char>(pixel + 1)));
  }
  EXPECT_EQ(open_dataset("cifar10:" + folder.path("python"))->fingerprint(),
            open_dataset("cifar10:" + folder.path("binary"))->fingerprint());
  folder.write("python/train",
               pickled_dictionary({{"fine_labels", pickled_list<int>({99})},
                                   {"coarse_labels", pickled_list<int>({19})},
                                   {"data", pickled_array(1, 3072, std::string(3072, 'p'))}}));
  folder.write("binary/train.bin", "\x13\x63" + std::string(3072, 'p'));
  const auto of = [&](const std::string& name) {
    return open_dataset("cifar100:" + folder.path(name))->fingerprint();
  };
  EXPECT_EQ(of("python"), of("binary"));
  EXPECT_EQ(of("python,labels=coarse"), of("binary,labels=coarse"));
  EXPECT_NE(of("binary,labels=coarse"), of("binary"));
}

TEST(CifarPickles, DamagedFilesAreNamed) {
  TemporaryFolder folder;
  const auto error = [&](const std::string& bytes) {
    folder.write("test_batch", bytes);
    return input_error([&] { open_dataset("cifar10:" + folder.path(), {.train = false}); });
  };
  const std::string pixels(3072, 'p');
  EXPECT_THAT(error(pickled_dictionary({{"data", pickled_array(1, 3072, pixels)}})),
              AllOf(HasSubstr("test_batch"), HasSubstr("no list under 'labels'")));
  EXPECT_THAT(error(pickled_dictionary({{"labels", pickled_list<int>({1})}})),
              HasSubstr("no numpy array under 'data'"));
  EXPECT_THAT(
      error(pickled_dictionary({{"labels", pickled_list(kTen)}, {"data", pickled_array(1, 3072, pixels)}})),
      HasSubstr("list of whole numbers under 'labels'"));
  EXPECT_THAT(error(pickled_dictionary(
                  {{"labels", pickled_list<int>({1, 2})}, {"data", pickled_array(1, 3072, pixels)}})),
              HasSubstr("2 labels and 1 x 3072"));
  EXPECT_THAT(error(pickled_dictionary(
                  {{"labels", pickled_list<int>({1})}, {"data", pickled_array(1, 3071, pixels.substr(1))}})),
              HasSubstr("1 x 3071"));
  EXPECT_THAT(error(pickled_dictionary(
                  {{"labels", pickled_list<int>({1})}, {"data", pickled_array(2, 3072, pixels)}})),
              HasSubstr("two-dimensional numpy array"));
  const std::string good = batch({3, 4}, 'x');
  for (std::size_t size = 0; size < good.size(); size += 101) {
    EXPECT_THAT(error(good.substr(0, size)), HasSubstr("test_batch")) << size;
  }
}

// Pickles in general
// -----------------------------------------------------------------------------------------------------------

std::string pickle_error(const std::string& bytes) {
  return input_error([&] { Pickle(std::as_bytes(std::span(bytes)), "x.pkl"); });
}

TEST(Pickle, NothingIsEverCalled) {
  EXPECT_THAT(pickle_error("\x80\x02"
                           "cposix\nsystem\nU\x04true\x85R."),
              AllOf(HasSubstr("x.pkl"), HasSubstr("posix.system"), HasSubstr("offset 2")));
  EXPECT_THAT(pickle_error("cos\nsystem"), HasSubstr("names"));
  EXPECT_THAT(pickle_error("}I01\n."), AllOf(HasSubstr("opcode 0x49"), HasSubstr("offset 1")));
  EXPECT_THAT(pickle_error("\x80\x04}."), HasSubstr("protocol 4"));
}

TEST(Pickle, LaterKeysReplaceEarlierOnesAndTheMemoIsFollowed) {
  const std::string bytes =
      "}q\x01(U\x01"
      "aq\x02]q\x03K\x01"
      "ah\x02]q\x04(K\x02J\xff\xff\xff\xffM\x02\x01"
      "euU\x01"
      "bh\x03s.";
  const Pickle pickle(std::as_bytes(std::span(bytes)), "x.pkl");
  EXPECT_THAT(pickle.integers("a"), ElementsAre(2, -1, 258));
  EXPECT_THAT(pickle.integers("b"), ElementsAre(1));
}

TEST(Pickle, HostileOnesAreErrors) {
  for (const std::string bytes : {".",
                                  "(.",
                                  "}",
                                  "K",
                                  "a.",
                                  "e.",
                                  "u.",
                                  "s.",
                                  "t.",
                                  "R.",
                                  "b.",
                                  "q\x01.",
                                  "h\x01.",
                                  "}K\x01K\x01R.",
                                  "K\x01K\x01"
                                  "b.",
                                  "K\x01K\x01K\x01s.",
                                  "}(K\x01u.",
                                  "](K\x01.",
                                  "(}K\x01(\x85.",
                                  "T\xff\xff\xff\xff.",
                                  "X\xff\xff\xff\x7f.",
                                  "K\x01.",
                                  "cnumpy\nndarray",
                                  "]K\x01"
                                  "b.",
                                  "cnumpy\ndtype\n)RNbNb.",
                                  "(]e.",
                                  "(((((t.",
                                  "}(K\x01(K\x01tttttu."}) {
    EXPECT_THAT(pickle_error(bytes), HasSubstr("x.pkl")) << testing::PrintToString(bytes);
  }
}

TEST(Pickle, LargeOnesAreErrors) {
  EXPECT_THAT(pickle_error("N" + std::string(900'000, '\x85') + "."),
              HasSubstr("dictionary"));  // deep, not recursive
  EXPECT_THAT(pickle_error(std::string(2'000'000, '(')), HasSubstr("more steps"));
  EXPECT_THAT(pickle_error(std::string(2'000'000, 'N')), HasSubstr("more steps"));
  std::string bomb = "]q\x01";  // a list that holds itself, and ever more of it
  for (int i = 0; i < 1000; ++i) {
    bomb +=
        "(h\x01h\x01h\x01"
        "e";
  }
  EXPECT_THAT(pickle_error(bomb + "."), HasSubstr("dictionary"));
  bomb = "}(U\x01t](U\xff" + std::string(255, 'x') + "q\x01";  // one text, again and again
  for (int i = 0; i < 1000; ++i) {
    bomb += "h\x01";
  }
  bomb += "eu.";
  EXPECT_THAT(input_error([&] { Pickle(std::as_bytes(std::span(bomb)), "x.pkl").texts("t"); }),
              HasSubstr("each once"));
}

TEST(Pickle, FlippedBytesAreErrorsOrOtherData) {
  const std::string good = batch({3, 4}, 'x');
  std::mt19937 random(7);
  SCOPED_TRACE("seed 7");
  int errors = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bad = good;
    // Most bytes are pixels: damage what is around them.
    const std::size_t at = random() % 2 ? random() % 300 : bad.size() - 1 - random() % 60;
    bad[at] = static_cast<char>(random());
    errors += input_error([&] {
                const Pickle pickle(std::as_bytes(std::span(bad)), "x.pkl");
                pickle.matrix("data");
                pickle.integers("labels");
                pickle.texts("filenames");
              }) != "(no error)";
  }
  EXPECT_GT(errors, 5000);
}

}  // namespace
}  // namespace millrace
