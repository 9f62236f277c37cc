#include "dataio/dataset.h"

#include <algorithm>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "dataio/mapping.h"

namespace millrace {

std::int64_t Dataset::label(std::int64_t index) const {
  std::vector<std::byte> scratch;
  return read(index, scratch).label;
}

namespace {

constexpr std::string_view kUnreadable = "unreadable";

std::vector<std::int64_t> spread_evenly(std::int64_t size) {
  const std::int64_t count = std::min<std::int64_t>(size, 16);
  std::vector<std::int64_t> places;
  for (std::int64_t i = 0; i < count; ++i) {
    places.push_back(size / count * i + size % count * i / count);  // size * i / count might overflow
  }
  return places;
}

void add_sample(Hash& hash, const Dataset& data, std::int64_t index, std::vector<std::byte>& scratch) {
  Sample sample;
  std::uint32_t crc = 0;
  try {
    do {
      sample = data.read(index, scratch);
      crc = crc32c(sample.bytes);
    } while (!mapped_reads_intact());  // once more: what is lost is then an error
  } catch (const InputError&) {        // whoever takes the sample is told
    hash.add(kUnreadable);
    return;
  }
  hash.add(sample.label).add(static_cast<std::int64_t>(sample.encoding));
  hash.add(sample.height).add(sample.width).add(sample.channels);
  hash.add(static_cast<std::int64_t>(sample.bytes.size())).add(crc);
}

std::uint64_t first_fingerprint(const Dataset& data) {
  const DatasetInfo& common = data.info();
  Hash hash;
  hash.add(data.size()).add(common.height).add(common.width).add(common.channels);
  for (const std::string& name : common.classes) {
    hash.add(name);
  }
  return hash.value();
}

}  // namespace

std::uint64_t Dataset::fingerprint(int version) const {
  if (version == 1) {
    return first_fingerprint(*this);
  }
  Hash hash;
  hash.add(size()).add(static_cast<std::int64_t>(info().classes.size())).add(info().channels);
  add_known(hash);
  const std::vector<std::int64_t> places = spread_evenly(size());
  will_need(places);
  std::vector<std::byte> scratch;
  for (const std::int64_t place : places) {
    add_sample(hash, *this, place, scratch);
  }
  return hash.value();
}

void Dataset::add_labels(Hash& hash) const {
  for (std::int64_t i = 0; i < size(); ++i) {
    try {
      hash.add(label(i));
    } catch (const InputError&) {
      hash.add(kUnreadable);
    }
  }
}

}  // namespace millrace
