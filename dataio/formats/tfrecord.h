#pragma once

#include <string>
#include <vector>

#include "dataio/formats/part_index.h"

namespace millrace {

/// The features of an example that make up a sample, by name: of several the first that an example has.
struct TfrecordFeatures {
  /// The bytes of a JPEG or PNG file.
  std::vector<std::string> image = {"image/encoded", "image_raw", "image"};
  std::vector<std::string> label = {"image/class/label", "label"};  ///< A whole number.
  std::vector<std::string> text = {"image/class/text"};             ///< The label's name, if there is one.
};

/// Lists the examples (tf.train.Example) in a TFRecord file: each has its length, a checksum of that, the
/// example, a checksum of that. Entries are whole records. Labels get the first name they come with. One
/// whose own checksum does not hold is listed as well, with label 0: check_tfrecord names it.
/// @throws InputError naming the file and the offset of a record that is cut, has a damaged length or no such
/// features.
PartIndex index_tfrecord(const DataFile& file, const TfrecordFeatures& features);

/// @throws InputError when a checksum in the record's bytes does not hold.
void check_tfrecord(const DataFile& file, const PartEntry& entry, std::span<const std::byte> record);

}  // namespace millrace
