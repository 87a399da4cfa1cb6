# Paths that are offered after Tab: as one argument, also where they hold blanks or signs that PowerShell reads.
# These replace the functions of the same names above.

function _dinomed3d_bare {
  # A word without the quotes around it, also where the last one is not typed yet.
  param([string]$Word)
  if ($Word -match '^''(.*?)''?$') { return $Matches[1].Replace("''", "'") }
  if ($Word -match '^"(.*?)"?$') { return $Matches[1] }
  $Word
}

function _dinomed3d_quoted {
  param([string]$Path)
  if ($Path -notmatch '[\s''"`$(){},;|&<>@#\u2018-\u201f]') { return $Path }
  if ($Path -match '^~[\\/]') { $Path = $HOME + $Path.Substring(1) }  # quoted, it would stay a tilde
  # PowerShell takes curly quotes for straight ones
  "'" + ($Path -replace '([''\u2018-\u201b])', '$1$1') + "'"
}

function _dinomed3d_paths {
  param([string]$WordToComplete, [bool]$Files)
  $word = _dinomed3d_bare $WordToComplete
  $dir = ''
  if ($word -match '^(.*[\\/])') { $dir = $Matches[1] }
  $pattern = [System.Management.Automation.WildcardPattern]::Escape($word) + '*'
  Get-ChildItem -Path $pattern -ErrorAction SilentlyContinue | ForEach-Object {
    if ($_.PSIsContainer) {
      _dinomed3d_quoted ($dir + $_.Name + [System.IO.Path]::DirectorySeparatorChar)
    } elseif ($Files) {
      _dinomed3d_quoted ($dir + $_.Name)
    }
  }
}

function _shtab_powershell_compgen_files {
  param([string]$WordToComplete)
  _dinomed3d_paths $WordToComplete $true
}

function _shtab_powershell_compgen_dirs {
  param([string]$WordToComplete)
  _dinomed3d_paths $WordToComplete $false
}
