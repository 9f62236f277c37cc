# Writes the first ```cpp and the ```cmake block of README to FOLDER as first.cpp and CMakeLists.txt.
file(READ ${README} text)

function(code_block language variable)
  string(FIND "${text}" "```${language}\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "${README} has no ```${language} block")
  endif()
  string(SUBSTRING "${text}" ${begin} -1 rest)
  string(REGEX REPLACE "^```${language}\n" "" rest "${rest}")
  string(FIND "${rest}" "```" end)
  string(SUBSTRING "${rest}" 0 ${end} rest)
  set(${variable} "${rest}" PARENT_SCOPE)
endfunction()

code_block(cpp program)
code_block(cmake project)
file(WRITE ${FOLDER}/first.cpp "${program}")
file(WRITE ${FOLDER}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(first LANGUAGES CXX)\n${project}")
