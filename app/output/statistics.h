#pragma once

#include "app/output/json_log.h"
#include "pipeline/loader/statistics.h"

namespace millrace::app {

/// Every counter, the averages and the verdict.
Json to_json(const LoaderStatistics& statistics);

/// A table of where the loader's time went, and the verdict.
void print_statistics(const LoaderStatistics& statistics);

}  // namespace millrace::app
