//! Columns of text, two blanks apart. No lines, no boxes.

pub struct Table {
    rows: Vec<Vec<String>>,
    head: bool,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table {
            rows: vec![head.map(str::to_owned).to_vec()],
            head: true,
        }
    }

    /// Without headings.
    pub fn plain() -> Table {
        Table {
            rows: Vec::new(),
            head: false,
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == usize::from(self.head)
    }

    /// Each line begins with `indent`. The last column is not padded.
    pub fn render(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .map(|row| width(row, column))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (column, cell) in row.iter().enumerate() {
                let pad = widths[column] - cell.chars().count();
                line.push_str(cell);
                line.push_str(&" ".repeat(pad + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width(row: &[String], column: usize) -> usize {
    row.get(column).map_or(0, |cell| cell.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(["NAME", "STATE", ""]);
        table.row(["a".to_owned(), "läuft".to_owned(), "x".to_owned()]);
        table.row(["long-name".to_owned(), "off".to_owned(), String::new()]);
        assert_eq!(
            table.render(" "),
            " NAME       STATE\n a          läuft  x\n long-name  off\n"
        );
        assert!(!table.is_empty() && Table::new(["A"]).is_empty());
    }
}
