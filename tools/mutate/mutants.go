package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// status is what became of a mutant.
type status string

const (
	unbuilt  status = "did not compile"
	killed   status = "killed"
	timeout  status = "killed by time"
	survived status = "survived"
)

// mutant is one planted mistake: a part of a file that is replaced.
type mutant struct {
	Key       string `json:"key"` // says what it is, and stays the same while the lines around it change
	File      string `json:"file"`
	Line      int    `json:"line"`
	Status    status `json:"status"`
	Unreached bool   `json:"unreached,omitempty"` // by any test, so none ran
	Test      string `json:"test,omitempty"`      // that failed first

	source      *source
	decl        ast.Decl // around it
	from, until int      // bytes of the file
	text        string   // what stands there instead
}

func byPlace(a, b *mutant) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.from, b.from), cmp.Compare(a.Key, b.Key))
}

// helpers is a file that is added to the package of a mutant. A value that goes through one of these functions is still
// computed and used, so that the mutant compiles.
const helpers = `package %s

func mutantZero[T any](T) (zero T)                              { return }
func mutantZero2[A, B any](A, B) (a A, b B)                     { return }
func mutantZero3[A, B, C any](A, B, C) (a A, b B, c C)          { return }
func mutantNil(any) (none error)                                { return }
`

// planter walks through the syntax and collects mutants.
type planter struct {
	*pkg
	source *source
	decl   ast.Decl
	name   string     // of the function, or of the first constant or variable
	stack  []ast.Node // the parents of the node, the nearest last
	found  []*mutant
	keys   map[string]int
}

// mutants lists all mutants of the package in the order of the files.
func (p *pkg) mutants() []*mutant {
	pl := &planter{pkg: p, keys: map[string]int{}}
	for _, f := range p.files {
		pl.source = f
		for _, d := range f.ast.Decls {
			pl.decl = d
			switch d := d.(type) {
			case *ast.FuncDecl:
				pl.name = functionName(d)
				pl.walk(d)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						pl.name = v.Names[0].Name
						pl.walk(v)
					}
				}
			}
		}
	}
	return pl.found
}

func functionName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if index, ok := t.(*ast.IndexExpr); ok {
		t = index.X
	}
	return types.ExprString(t) + "." + d.Name.Name
}

func (pl *planter) walk(root ast.Node) {
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			pl.stack = pl.stack[:len(pl.stack)-1]
			return true
		}
		if r, ok := pl.parent().(*ast.ReturnStmt); ok && !slices.Contains(pl.lookedAt(r), n.(ast.Expr)) {
			return false
		}
		pl.visit(n)
		pl.stack = append(pl.stack, n)
		return true
	})
}

func (pl *planter) parent() ast.Node {
	if len(pl.stack) == 0 {
		return nil
	}
	return pl.stack[len(pl.stack)-1]
}

func (pl *planter) visit(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		pl.binary(n)
	case *ast.UnaryExpr:
		switch n.Op {
		case token.NOT, token.SUB, token.XOR:
			pl.plant(n.OpPos, n.OpPos+1, "", "")
		}
	case *ast.BasicLit:
		pl.number(n)
	case *ast.Ident:
		pl.identifier(n)
	case *ast.IfStmt:
		pl.condition(n.Cond)
	case *ast.ForStmt:
		pl.condition(n.Cond)
	case *ast.SwitchStmt:
		pl.cases(n.Body, n.Tag == nil)
	case *ast.TypeSwitchStmt:
		pl.cases(n.Body, false)
	case *ast.IncDecStmt:
		op := token.DEC
		if n.Tok == token.DEC {
			op = token.INC
		}
		pl.operator(n.TokPos, n.Tok, op)
		pl.leaveOut(n)
	case *ast.AssignStmt:
		pl.assignment(n)
	case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		pl.leaveOut(n)
	case *ast.BranchStmt:
		if n.Tok == token.BREAK || n.Tok == token.CONTINUE {
			pl.leaveOut(n)
		}
	case *ast.ReturnStmt:
		pl.returned(n)
	}
}

var comparisons = map[token.Token][]token.Token{
	token.EQL: {token.NEQ},
	token.NEQ: {token.EQL},
	token.LSS: {token.LEQ, token.GEQ},
	token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ},
	token.GEQ: {token.GTR, token.LSS},
}

var arithmetic = map[token.Token]token.Token{
	token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
	token.AND: token.OR, token.OR: token.AND, token.XOR: token.OR, token.AND_NOT: token.AND,
	token.SHL: token.SHR, token.SHR: token.SHL,

	token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN,
	token.MUL_ASSIGN: token.QUO_ASSIGN, token.QUO_ASSIGN: token.MUL_ASSIGN, token.REM_ASSIGN: token.MUL_ASSIGN,
	token.AND_ASSIGN: token.OR_ASSIGN, token.OR_ASSIGN: token.AND_ASSIGN, token.XOR_ASSIGN: token.OR_ASSIGN,
	token.AND_NOT_ASSIGN: token.OR_ASSIGN,
	token.SHL_ASSIGN:     token.SHR_ASSIGN, token.SHR_ASSIGN: token.SHL_ASSIGN,
}

func (pl *planter) binary(n *ast.BinaryExpr) {
	for _, op := range comparisons[n.Op] {
		pl.operator(n.OpPos, n.Op, op)
	}
	if op, ok := arithmetic[n.Op]; ok && !pl.isString(n.X) && !pl.info.Types[n.X].IsType() {
		pl.operator(n.OpPos, n.Op, op)
	}
	for _, side := range []ast.Expr{n.X, n.Y} {
		if chain, ok := ast.Unparen(side).(*ast.BinaryExpr); ok && chain.Op == n.Op {
			continue // each of its sides is left out alone
		}
		switch n.Op {
		case token.LAND:
			pl.plant(side.Pos(), side.End(), "(true || ("+pl.textOf(side)+"))", "true")
		case token.LOR:
			pl.plant(side.Pos(), side.End(), "(false && ("+pl.textOf(side)+"))", "false")
		}
	}
}

func (pl *planter) isString(e ast.Expr) bool { return isBasic(pl.info.TypeOf(e), types.IsString) }

func isBool(t types.Type) bool { return isBasic(t, types.IsBoolean) }

func isBasic(t types.Type, kind types.BasicInfo) bool {
	if t == nil {
		return false
	}
	basic, ok := t.Underlying().(*types.Basic)
	return ok && basic.Info()&kind != 0
}

// number makes a constant one greater and one less, a character another one, but not where the nearest mutant of a comparison does the same
// (n > 4 and n >= 5) or where it is only a hint (the capacity of a slice).
func (pl *planter) number(n *ast.BasicLit) {
	if n.Kind != token.INT && n.Kind != token.CHAR {
		return
	}
	more, less := true, n.Kind == token.INT
	switch parent := pl.parent().(type) {
	case *ast.BinaryExpr:
		op := parent.Op
		if parent.X == n {
			op = map[token.Token]token.Token{token.LSS: token.GTR, token.GTR: token.LSS, token.LEQ: token.GEQ, token.GEQ: token.LEQ}[op]
		}
		more = op != token.GEQ && op != token.LSS
		less = less && op != token.GTR && op != token.LEQ
	case *ast.CallExpr:
		if name, ok := parent.Fun.(*ast.Ident); ok && name.Name == "make" && len(parent.Args) == 3 && parent.Args[2] == n {
			return
		}
	}
	shown := func(by int) string {
		if v, err := strconv.Atoi(n.Value); err == nil {
			return strconv.Itoa(v + by)
		}
		return fmt.Sprintf("%s%+d", n.Value, by)
	}
	if more {
		pl.plant(n.Pos(), n.End(), "("+n.Value+"+1)", shown(1))
	}
	if less {
		pl.plant(n.Pos(), n.End(), "("+n.Value+"-1)", shown(-1))
	}
}

var opposites = map[string]string{"true": "false", "false": "true", "min": "max", "max": "min"}

// identifier swaps the predeclared true and false, min and max.
func (pl *planter) identifier(n *ast.Ident) {
	if other := opposites[n.Name]; other != "" && pl.info.Uses[n] != nil && pl.info.Uses[n].Parent() == types.Universe {
		pl.plant(n.Pos(), n.End(), other, other)
	}
}

// condition negates one that has no operator to mutate.
func (pl *planter) condition(e ast.Expr) {
	switch c := ast.Unparen(e).(type) {
	case nil, *ast.BinaryExpr:
		return
	case *ast.UnaryExpr:
		if c.Op == token.NOT {
			return
		}
	}
	pl.plant(e.Pos(), e.End(), "!("+pl.textOf(e)+")", "!("+pl.textOf(e)+")")
}

// cases leaves out each label of a switch, and negates it where it is a condition.
func (pl *planter) cases(body *ast.BlockStmt, conditions bool) {
	for _, s := range body.List {
		clause := s.(*ast.CaseClause)
		if len(clause.List) == 1 {
			pl.plant(clause.Pos(), clause.End(), "", "")
		}
		for i, label := range clause.List {
			if conditions {
				pl.condition(label)
			}
			if len(clause.List) == 1 {
				break
			}
			if i+1 < len(clause.List) {
				pl.plant(label.Pos(), clause.List[i+1].Pos(), "", "")
			} else {
				pl.plant(clause.List[i-1].End(), label.End(), "", "")
			}
		}
	}
}

func (pl *planter) assignment(n *ast.AssignStmt) {
	if op, ok := arithmetic[n.Tok]; ok && !pl.isString(n.Lhs[0]) {
		pl.operator(n.TokPos, n.Tok, op)
	}
	if n.Tok == token.DEFINE {
		return
	}
	blank := !slices.ContainsFunc(n.Lhs, func(e ast.Expr) bool {
		name, ok := e.(*ast.Ident)
		return !ok || name.Name != "_"
	})
	if _, call := n.Rhs[0].(*ast.CallExpr); !blank || call {
		pl.leaveOut(n)
	}
}

// leaveOut takes a statement out of its block. It stays where it does not run, so that the rest compiles.
func (pl *planter) leaveOut(n ast.Node) {
	s := n.(ast.Stmt)
	var list []ast.Stmt
	switch parent := pl.parent().(type) {
	case *ast.BlockStmt:
		list = parent.List
	case *ast.CaseClause:
		list = parent.Body
	case *ast.CommClause:
		list = parent.Body
	}
	if slices.Contains(list, s) {
		pl.plant(s.Pos(), s.End(), "if false { "+pl.textOf(s)+" }", "")
	}
}

// returned leaves a return out, and returns the zero value for each of its values; true as well where a value says yes
// or no without an operator that could be mutated.
func (pl *planter) returned(n *ast.ReturnStmt) {
	pl.leaveOut(n)
	for _, e := range pl.lookedAt(n) {
		text := pl.textOf(e)
		put := func(replacement string) { pl.plant(e.Pos(), e.End(), replacement, "zero") }
		tv := pl.info.Types[e]
		switch tuple, several := tv.Type.(*types.Tuple); {
		case several && tuple.Len() < 4:
			put(fmt.Sprintf("mutantZero%d(%s)", tuple.Len(), text))
		case several || tv.IsNil():
		case tv.Value != nil:
			pl.zero(e, tv, put)
		case types.Implements(tv.Type, errorType):
			put("mutantNil(" + text + ")")
		case types.IsInterface(tv.Type):
			put("nil")
		default:
			put("mutantZero(" + text + ")")
			if _, operator := ast.Unparen(e).(*ast.BinaryExpr); !operator && isBool(tv.Type) {
				pl.plant(e.Pos(), e.End(), "(true || ("+text+"))", "true")
			}
		}
	}
}

// lookedAt are the results of a return that a caller may look at: all but a constant beside an error that is certainly
// not nil, or beside false. What is computed, such as the place of an error, is looked at.
func (pl *planter) lookedAt(n *ast.ReturnStmt) []ast.Expr {
	if len(n.Results) < 2 {
		return n.Results
	}
	last := n.Results[len(n.Results)-1]
	tv := pl.info.Types[last]
	refused := types.Implements(tv.Type, errorType) && pl.isError(last)
	if tv.Value != nil && isBool(tv.Type) {
		refused = !constant.BoolVal(tv.Value)
	}
	if !refused {
		return n.Results
	}
	var computed []ast.Expr
	for _, e := range n.Results {
		if e == last || pl.info.Types[e].Value == nil {
			computed = append(computed, e)
		}
	}
	return computed
}

// isError reports whether e is certainly not nil: a new error, a variable of a package, or err behind "if err != nil".
func (pl *planter) isError(e ast.Expr) bool {
	switch e := ast.Unparen(e).(type) {
	case *ast.UnaryExpr, *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		f := types.ExprString(e.Fun)
		return f == "errors.New" || f == "fmt.Errorf"
	case *ast.SelectorExpr:
		return pl.isGlobal(e.Sel)
	case *ast.Ident:
		return pl.isGlobal(e) || pl.behindCheck(e.Name)
	}
	return false
}

func (pl *planter) isGlobal(name *ast.Ident) bool {
	object := pl.info.Uses[name]
	return object != nil && object.Pkg() != nil && object.Parent() == object.Pkg().Scope()
}

// behindCheck reports whether the nearest condition around the node is that this name is not nil.
func (pl *planter) behindCheck(name string) bool {
	for i := len(pl.stack) - 2; i >= 0; i-- {
		around, ok := pl.stack[i].(*ast.IfStmt)
		if !ok {
			continue
		}
		c, ok := around.Cond.(*ast.BinaryExpr)
		return ok && c.Op == token.NEQ && types.ExprString(c.X) == name && types.ExprString(c.Y) == "nil" && pl.stack[i+1] == around.Body
	}
	return false
}

var errorType = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

// zero puts the zero of a constant that is not zero and that has no mutants of its own.
func (pl *planter) zero(e ast.Expr, tv types.TypeAndValue, put func(string)) {
	if _, named := e.(*ast.Ident); !named && !pl.isString(e) {
		return
	}
	switch {
	case isBasic(tv.Type, types.IsString) && tv.Value.ExactString() != `""`:
		put(`""`)
	case isBasic(tv.Type, types.IsNumeric) && tv.Value.ExactString() != "0":
		put("0")
	}
}

func (pl *planter) operator(at token.Pos, old, op token.Token) {
	pl.plant(at, at+token.Pos(len(old.String())), op.String(), op.String())
}

func (pl *planter) offset(at token.Pos) int { return pl.fset.Position(at).Offset }

func (pl *planter) textOf(n ast.Node) string {
	return string(pl.source.text[pl.offset(n.Pos()):pl.offset(n.End())])
}

// plant adds the mutant in which text stands instead of what is between two places. The report shows what a reader would
// have written, nothing being a removal.
func (pl *planter) plant(at, end token.Pos, text, shown string) {
	from, until := pl.offset(at), pl.offset(end)
	m := &mutant{File: pl.source.name, Line: pl.fset.Position(at).Line, source: pl.source, decl: pl.decl, from: from, until: until, text: text}
	before, after := pl.line(from, until)
	old := string(pl.source.text[from:until])
	to := oneLine(before + shown + after)
	if to == "" {
		to = "(left out)"
	}
	key := fmt.Sprintf("%s %s: %s => %s", m.File, pl.name, oneLine(before+old+after), to)
	if pl.keys[key]++; pl.keys[key] > 1 {
		key = fmt.Sprintf("%s #%d", key, pl.keys[key])
	}
	m.Key = key
	pl.found = append(pl.found, m)
}

// line is what stands before and after a part of the text in its lines, comments left out.
func (pl *planter) line(from, until int) (before, after string) {
	text := pl.source.text
	start, end := from, until
	for start > 0 && text[start-1] != '\n' {
		start--
	}
	for end < len(text) && text[end] != '\n' {
		end++
	}
	for _, group := range pl.source.ast.Comments {
		for _, c := range group.List {
			if at := pl.offset(c.Pos()); at >= until && at < end {
				end = at
			}
		}
	}
	return string(text[start:from]), string(text[until:end])
}

// longest is how much of a line the key has.
const longest = 200

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > longest {
		s = string(runes[:longest]) + "…"
	}
	return s
}
